"""Coroutines that go on in the very turn that brings what they wait for.

A task of asyncio begins in the next turn of the event loop, and once more waits a turn between an
answer and going on. A decision asks the store once; as an `Errand` it begins at once, and its
`Reply` leads it on as soon as the store's bytes are read. What waits for anything else (a timer, a
file, another task) becomes a task of asyncio at that point and ends as one.

Until then `asyncio.current_task()` is None in it, so that `asyncio.timeout` may not be its first
way to wait.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError, InvalidStateError

from cpython.contextvars cimport PyContext_CopyCurrent
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF

cdef extern from "Python.h":
    int PYGEN_RETURN
    int PYGEN_NEXT
    int PyIter_Send(object coroutine, object value, PyObject** result) except -1

    # What Cython has no word for: how a type takes `send` without raising StopIteration.
    ctypedef int (*sendfunc)(PyObject*, PyObject*, PyObject**)
    ctypedef struct PyAsyncMethods:
        sendfunc am_send
    ctypedef struct PyTypeObject:
        PyAsyncMethods* tp_as_async

#: Errands that have become tasks: the event loop itself keeps only weak references to those.
cdef set TASKS = set()

cdef class Reply:
    """What will be answered; awaited by an errand, or like any future by a task."""

    def __init__(self, loop not None):
        self._loop = loop

    # What whoever answers calls.

    cpdef set_result(self, value):
        """Take the answer; InvalidStateError if there is one already."""
        self.check_pending()
        self._value = value
        self._state = FINISHED
        self.tell()

    cpdef set_exception(self, error):
        """Take the error that awaiting it raises; InvalidStateError if it has ended already."""
        self.check_pending()
        self._error = error
        self._state = FINISHED
        self.tell()

    cdef check_pending(self):
        if self._state != PENDING:
            raise InvalidStateError("the reply is there already")

    cdef tell(self):
        cdef Errand errand = self._errand
        cdef list callbacks = self._callbacks
        self._errand = None
        self._callbacks = None
        if errand is not None:
            errand.go_on()
        if callbacks is not None:
            for callback, context in callbacks:
                self._loop.call_soon(callback, self, context=context)

    # What whoever waits calls: the protocol of asyncio's futures.

    def done(self):
        """Return whether it is answered or cancelled."""
        return self._state != PENDING

    def cancelled(self):
        """Return whether nobody waits for it any more."""
        return self._state == CANCELLED

    def cancel(self, msg=None):
        """Wait no longer; return False if it has ended already."""
        if self._state != PENDING:
            return False
        self._state = CANCELLED
        self.tell()
        return True

    def result(self):
        """Return the answer or raise its error; InvalidStateError if there is none yet."""
        if self._state == CANCELLED:
            raise CancelledError
        if self._state == PENDING:
            raise InvalidStateError("there is no reply yet")
        if self._error is not None:
            raise self._error
        return self._value

    def exception(self):
        """Return the error, if it is one; InvalidStateError if there is no reply yet."""
        if self._state == CANCELLED:
            raise CancelledError
        if self._state == PENDING:
            raise InvalidStateError("there is no reply yet")
        return self._error

    def add_done_callback(self, callback, *, context=None):
        """Call `callback(reply)` from the event loop once it has ended."""
        if context is None:
            context = PyContext_CopyCurrent()
        if self._state != PENDING:
            self._loop.call_soon(callback, self, context=context)
        elif self._callbacks is None:
            self._callbacks = [(callback, context)]
        else:
            self._callbacks.append((callback, context))

    def remove_done_callback(self, callback):
        """Do not call it; return how often it would have been."""
        cdef list kept
        cdef Py_ssize_t removed
        if self._callbacks is None:
            return 0
        kept = [entry for entry in self._callbacks if entry[0] != callback]
        removed = len(self._callbacks) - len(kept)
        self._callbacks = kept
        return removed

    def get_loop(self):
        """Return the event loop that calls back."""
        return self._loop

    # `asyncio.gather` asks for these two, and of nothing else behind the protocol.

    @property
    def _cancel_message(self):
        """None: no word is kept of why nobody waits any longer."""
        return None

    def _make_cancelled_error(self):
        """Return what awaiting it raises when it is cancelled."""
        return CancelledError()

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        if self._state == PENDING:
            self._asyncio_future_blocking = True
            return self
        raise StopIteration(self.result())


cdef int send_reply(Reply reply, object _value, PyObject** result) except -1:
    """Do as `__next__` for a coroutine that awaits: an answer need not become an exception."""
    cdef object value
    cdef int outcome = PYGEN_RETURN
    result[0] = NULL
    if reply._state == PENDING:
        reply._asyncio_future_blocking = True
        value = reply
        outcome = PYGEN_NEXT
    elif reply._state == FINISHED and reply._error is None:
        value = reply._value
    else:
        value = reply.result()
    Py_INCREF(value)
    result[0] = <PyObject*>value
    return outcome


(<PyTypeObject*>Reply).tp_as_async.am_send = <sendfunc>send_reply


cdef class Errand:
    """A coroutine on its way; see the module. Those derived from it say what its end means."""

    cdef go_on(self):
        """Lead the coroutine to its end or to where it has to wait."""
        cdef PyObject* result = NULL
        cdef Reply reply
        cdef int outcome
        try:
            outcome = PyIter_Send(self._coroutine, None, &result)
        except BaseException as error:
            self.end(None, error)
            return
        value = <object>result
        Py_DECREF(value)
        if outcome == PYGEN_RETURN:
            self.end(value, None)
            return
        if isinstance(value, Reply):
            reply = <Reply>value
            if reply._state == PENDING and reply._errand is None:
                reply._asyncio_future_blocking = False
                reply._errand = self
                return
        self.become_task(value)

    cdef become_task(self, awaited):
        cdef Rest rest = Rest.__new__(Rest)
        rest._coroutine = self._coroutine
        rest._awaited = awaited
        rest._is_waiting = True
        rest._is_marked = getattr(awaited, "_asyncio_future_blocking", False)
        if rest._is_marked:
            # A future takes the mark of one at a time, and others may wait before the task begins.
            awaited._asyncio_future_blocking = False
        task = asyncio.get_running_loop().create_task(rest)
        TASKS.add(task)
        task.add_done_callback(self.end_as_task)

    def end_as_task(self, task):
        """Report what the rest of the way, as a task, has come to."""
        TASKS.discard(task)
        try:
            value = task.result()
        except BaseException as error:
            self.end(None, error)
        else:
            self.end(value, None)

    cdef end(self, value, error):
        self._coroutine = None
        try:
            self.ended(value, error)
        except Exception as failure:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "the end of an errand could not be told", "exception": failure}
            )
        if error is not None and isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise error

    cdef ended(self, value, error):
        """Take what the coroutine returned, or what it raised, CancelledError included."""
        raise NotImplementedError


cdef class ToldErrand(Errand):
    """An errand whose end is told to a callable."""

    cdef ended(self, value, error):
        on_end, subject = self._on_end, self._subject
        self._on_end = self._subject = None
        on_end(subject, value, error)


cdef class Rest:
    """The rest of a coroutine that stopped at `awaited`, as a coroutine for a task.

    The task runs it and no other around it: cancelled before it begins, a task would throw the
    error into that one alone, and this would be closed without having seen it.
    """

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self.send(None)

    def send(self, value):
        """Hand out what the coroutine stopped at, then lead it on."""
        if self._is_waiting:
            self._is_waiting = False
            awaited, self._awaited = self._awaited, None
            if self._is_marked:
                awaited._asyncio_future_blocking = True
            return awaited
        return self._coroutine.send(value)

    def throw(self, *error):
        """Raise an error where the coroutine stands."""
        self._is_waiting = False
        return self._coroutine.throw(*error)

    def close(self):
        """End the coroutine."""
        self._coroutine.close()


def send_off(coroutine not None, on_end not None, subject):
    """Begin a coroutine now; call `on_end(subject, value, error)` once it has ended.

    That may be before this returns. One of value and error is None; an error is what the coroutine
    raised, CancelledError included. `on_end` must not raise.
    """
    cdef ToldErrand errand = ToldErrand.__new__(ToldErrand)
    errand._coroutine = coroutine
    errand._on_end = on_end
    errand._subject = subject
    errand.go_on()
