"""Coroutines that go on in the very turn that brings what they wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")
_S = TypeVar("_S")

class Reply(Generic[_T]):
    """What will be answered; awaited by an errand, or like any future by a task."""

    _asyncio_future_blocking: bool

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None: ...
    def set_result(self, value: _T) -> None:
        """Take the answer; InvalidStateError if there is one already."""

    def set_exception(self, error: BaseException) -> None:
        """Take the error that awaiting it raises; InvalidStateError if it has ended already."""

    def done(self) -> bool:
        """Return whether it is answered or cancelled."""

    def cancelled(self) -> bool:
        """Return whether nobody waits for it any more."""

    def cancel(self, msg: object = None) -> bool:
        """Wait no longer; return False if it has ended already."""

    def result(self) -> _T:
        """Return the answer or raise its error; InvalidStateError if there is none yet."""

    def exception(self) -> BaseException | None:
        """Return the error, if it is one; InvalidStateError if there is no reply yet."""

    def add_done_callback(
        self, callback: Callable[[Reply[_T]], object], *, context: Context | None = None
    ) -> None:
        """Call `callback(reply)` from the event loop once it has ended."""

    def remove_done_callback(self, callback: Callable[[Reply[_T]], object]) -> int:
        """Do not call it; return how often it would have been."""

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop that calls back."""

    def __await__(self) -> Generator[Any, None, _T]: ...

def send_off(
    coroutine: Coroutine[Any, Any, _T],
    on_end: Callable[[_S, _T | None, BaseException | None], None],
    subject: _S,
) -> None:
    """Begin a coroutine now; call `on_end(subject, value, error)` once it has ended.

    That may be before this returns. One of value and error is None; an error is what the coroutine
    raised, CancelledError included. `on_end` must not raise.
    """
