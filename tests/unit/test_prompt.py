"""Replies and errands: coroutines that go on without the event loop's queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from helpers import until

from authz_ext.prompt import Reply, send_off

#: Both event loops: conftest.py.
EVERY_LOOP = True


class Ends:
    """Takes down how errands ended."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    def __call__(self, subject: str, value: Any, error: BaseException | None) -> None:
        self.told.append((subject, value if error is None else type(error)))


def reply() -> Reply[Any]:
    return Reply(asyncio.get_running_loop())


async def wait_for(awaited: Any) -> Any:
    return await awaited


async def twice(first: Any, second: Any) -> Any:
    return [await first, await second]


async def test_an_errand_that_waits_for_nothing_ends_at_once() -> None:
    async def at_once() -> int:
        return 5

    ends = Ends()
    send_off(at_once(), ends, "a")
    assert ends.told == [("a", 5)]


async def test_it_goes_on_in_the_turn_of_the_reply() -> None:
    first, second, ends = reply(), reply(), Ends()
    send_off(twice(first, second), ends, "a")
    first.set_result(1)
    assert ends.told == []
    second.set_result(2)
    assert ends.told == [("a", [1, 2])]


async def test_a_reply_that_is_there_already_costs_no_wait() -> None:
    first, second, ends = reply(), reply(), Ends()
    second.set_result(2)
    send_off(twice(first, second), ends, "a")
    first.set_result(1)
    assert ends.told == [("a", [1, 2])]


async def test_errors_end_it_and_are_told() -> None:
    awaited, ends = reply(), Ends()
    send_off(wait_for(awaited), ends, "a")
    awaited.set_exception(KeyError("x"))

    async def fails() -> None:
        raise ValueError

    send_off(fails(), ends, "b")
    assert ends.told == [("a", KeyError), ("b", ValueError)]


async def test_an_errand_may_go_on_after_an_error() -> None:
    async def careful(awaited: Reply[Any]) -> str:
        try:
            await awaited
        except KeyError:
            return await late
        raise AssertionError

    first, late, ends = reply(), reply(), Ends()
    send_off(careful(first), ends, "a")
    first.set_exception(KeyError("x"))
    late.set_result("done")
    assert ends.told == [("a", "done")]


async def test_what_waits_for_anything_else_becomes_a_task() -> None:
    async def mixed(awaited: Reply[int]) -> tuple[int, bool, int]:
        await asyncio.sleep(0)
        async with asyncio.timeout(90):
            await asyncio.sleep(0.001)
        is_task = asyncio.current_task() is not None
        return await awaited, is_task, await asyncio.shield(wait_for(second))

    first, second, ends = reply(), reply(), Ends()
    send_off(mixed(first), ends, "a")
    await asyncio.sleep(0.01)
    first.set_result(1)
    await asyncio.sleep(0.01)
    second.set_result(2)
    await until(lambda: bool(ends.told))
    assert ends.told == [("a", (1, True, 2))]


async def test_errors_of_other_things_arrive_in_it() -> None:
    async def careful() -> str:
        try:
            await broken
        except OSError as error:
            return str(error)
        raise AssertionError

    broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    ends = Ends()
    send_off(careful(), ends, "a")
    await asyncio.sleep(0)
    broken.set_exception(OSError("gone"))
    await until(lambda: bool(ends.told))
    assert ends.told == [("a", "gone")]


def future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("make", [reply, future])
async def test_many_may_wait_for_one_thing(make: Callable[[], Any]) -> None:
    awaited, ends = make(), Ends()
    earlier = asyncio.create_task(wait_for(awaited))
    for name in "abc":
        send_off(wait_for(awaited), ends, name)
    later = asyncio.create_task(wait_for(awaited))
    await asyncio.sleep(0)
    send_off(wait_for(awaited), ends, "d")
    await asyncio.sleep(0)
    awaited.set_result(1)
    assert await asyncio.gather(earlier, later) == [1, 1]
    await until(lambda: len(ends.told) == 4)
    assert sorted(ends.told) == [("a", 1), ("b", 1), ("c", 1), ("d", 1)]


async def test_a_cancelled_task_of_an_errand_is_told() -> None:
    ends = Ends()
    send_off(asyncio.sleep(60), ends, "a")
    await asyncio.sleep(0)
    (task,) = asyncio.all_tasks() - {asyncio.current_task()}
    task.cancel()
    await until(lambda: bool(ends.told))
    assert ends.told == [("a", asyncio.CancelledError)]


@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_it_sees_that_its_task_is_cancelled(turns: int) -> None:
    async def careful() -> str:
        try:
            await future()
        except asyncio.CancelledError:
            return await late
        raise AssertionError

    late, ends = reply(), Ends()
    send_off(careful(), ends, "a")
    for _ in range(turns):
        await asyncio.sleep(0)
    (task,) = asyncio.all_tasks() - {asyncio.current_task()}
    task.cancel()
    await asyncio.sleep(0)
    late.set_result("done")
    await until(lambda: bool(ends.told))
    assert ends.told == [("a", "done")]


async def test_a_cancelled_reply_cancels_its_errand() -> None:
    awaited, ends = reply(), Ends()
    send_off(wait_for(awaited), ends, "a")
    assert awaited.cancel()
    assert not awaited.cancel()
    assert awaited.cancelled()
    assert ends.told == [("a", asyncio.CancelledError)]


async def test_a_failing_end_is_reported_and_disturbs_nobody() -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    def broken_end(subject: str, value: Any, error: BaseException | None) -> None:
        raise RuntimeError(subject)

    awaited = reply()
    send_off(wait_for(awaited), broken_end, "a")
    awaited.set_result(1)
    assert [type(context["exception"]) for context in reported] == [RuntimeError]


async def test_an_exit_leaves_the_errand() -> None:
    async def leaves() -> None:
        raise SystemExit(3)

    ends = Ends()
    with pytest.raises(SystemExit):
        send_off(leaves(), ends, "a")
    assert ends.told == [("a", SystemExit)]


# --- A reply is a future to asyncio --------------------------------------------------------------


async def test_a_task_waits_for_it_as_for_a_future() -> None:
    awaited = reply()
    task = asyncio.create_task(wait_for(awaited))
    await asyncio.sleep(0)
    assert not awaited.done()
    awaited.set_result(7)
    assert await task == 7
    assert asyncio.isfuture(awaited)
    assert awaited.get_loop() is asyncio.get_running_loop()


async def test_asyncio_waits_for_many() -> None:
    one, other = reply(), reply()
    loop = asyncio.get_running_loop()
    loop.call_soon(one.set_result, 1)
    loop.call_soon(other.set_exception, KeyError("x"))
    told = await asyncio.gather(one, other, return_exceptions=True)
    assert told[0] == 1
    assert isinstance(told[1], KeyError)
    assert (await asyncio.wait((one, other)))[1] == set()
    assert await asyncio.wait_for(one, 1) == 1
    assert await asyncio.shield(one) == 1


async def test_cancelling_those_that_wait_cancels_it() -> None:
    def gather_all(awaited: Any) -> Any:
        return asyncio.gather(awaited, asyncio.sleep(0), return_exceptions=True)

    for waiting in (asyncio.gather, gather_all, wait_for):
        awaited = reply()
        task = asyncio.ensure_future(waiting(awaited))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert awaited.cancelled()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reply(), 0.001)


async def test_its_outcome_is_taken_once() -> None:
    awaited = reply()
    for look in (awaited.result, awaited.exception):
        with pytest.raises(asyncio.InvalidStateError):
            look()
    awaited.set_result(1)
    for change in (awaited.set_result, awaited.set_exception):
        with pytest.raises(asyncio.InvalidStateError):
            change(KeyError())
    assert awaited.exception() is None
    cancelled = reply()
    cancelled.cancel()
    for look in (cancelled.result, cancelled.exception):
        with pytest.raises(asyncio.CancelledError):
            look()


async def test_callbacks_are_called_by_the_loop_unless_removed() -> None:
    awaited, called = reply(), []
    awaited.add_done_callback(called.append)
    awaited.add_done_callback(print)
    assert awaited.remove_done_callback(print) == 1
    assert reply().remove_done_callback(print) == 0
    awaited.set_result(1)
    assert called == []
    awaited.add_done_callback(called.append)
    await until(lambda: len(called) == 2)
    assert called == [awaited, awaited]
