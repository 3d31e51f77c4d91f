"""The store client against a network and servers that fail: what it says is what happened."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest
from helpers import make_script, until
from proxy import Proxy
from servers import Server

from authz.errors import NotExecuted, OutcomeUnknown, StoreReplyError
from authz.store import client as client_module
from authz.store.client import StoreClient
from authz.store.connection import IN_FLIGHT_MAX, QUEUED_MAX
from authz.store.embedded import EmbeddedStore
from authz.store.url import parse_store_url

#: Both event loops: conftest.py.
EVERY_LOOP = True
LONG_MS = 10_000


INCREMENT = make_script("increment", "return redis.call('INCR', KEYS[1])")


@pytest.fixture
async def proxy(store_server: Server, rng: random.Random) -> AsyncIterator[Proxy]:
    path = parse_store_url(store_server.url).socket_path
    async with Proxy(path, rng=rng) as proxy:
        yield proxy


@pytest.fixture
async def client(proxy: Proxy) -> AsyncIterator[StoreClient]:
    client = await StoreClient.connect(proxy.url, scripts=[INCREMENT])
    yield client
    await client.close()


async def outcome(command: Awaitable[Any]) -> Any:
    """Return a command's reply, or the error it ended with."""
    try:
        return await command
    except (NotExecuted, OutcomeUnknown, StoreReplyError) as error:
        return error


def start(client: StoreClient, *command: str, deadline_ms: int = LONG_MS) -> asyncio.Task[Any]:
    return asyncio.create_task(outcome(client.execute(*command, deadline_ms=deadline_ms)))


async def test_lost_connection_leaves_sent_unknown_and_unsent_not_executed(
    proxy: Proxy, client: StoreClient, store: StoreClient
) -> None:
    proxy.replies.hold()
    tasks = [start(client, "INCR", "a") for _ in range(IN_FLIGHT_MAX + 300)]
    await until(lambda: client.in_flight == IN_FLIGHT_MAX)
    assert client.queued == 300
    executed: list[bytes] = []
    while b"1024" not in executed:
        executed.append(await store.execute("GET", "a"))
    proxy.cut()
    results = await asyncio.gather(*tasks)
    assert {type(result) for result in results[:IN_FLIGHT_MAX]} == {OutcomeUnknown}
    assert {type(result) for result in results[IN_FLIGHT_MAX:]} == {NotExecuted}
    assert await store.execute("GET", "a") == b"1024"


async def test_at_most_1024_in_flight_and_all_answered_in_order(
    proxy: Proxy, client: StoreClient
) -> None:
    proxy.replies.hold()
    tasks = [start(client, "INCR", "a") for _ in range(3 * IN_FLIGHT_MAX)]
    await until(lambda: client.in_flight == IN_FLIGHT_MAX)
    await asyncio.sleep(0.05)
    assert client.in_flight == IN_FLIGHT_MAX
    proxy.replies.release()
    assert await asyncio.gather(*tasks) == list(range(1, 3 * IN_FLIGHT_MAX + 1))
    assert client.in_flight == client.queued == 0


async def test_queue_is_bounded(proxy: Proxy, client: StoreClient) -> None:
    proxy.replies.hold()
    tasks = [start(client, "INCR", "a") for _ in range(IN_FLIGHT_MAX)]
    await until(lambda: client.in_flight == IN_FLIGHT_MAX)
    tasks += [start(client, "INCR", "a") for _ in range(QUEUED_MAX)]
    await until(lambda: client.queued == QUEUED_MAX)
    with pytest.raises(NotExecuted, match="wait to be sent"):
        await client.execute("INCR", "a")
    proxy.replies.release()
    assert await asyncio.gather(*tasks) == list(range(1, IN_FLIGHT_MAX + QUEUED_MAX + 1))


async def test_queued_command_past_its_deadline_is_never_sent(
    proxy: Proxy, client: StoreClient
) -> None:
    proxy.replies.hold()
    tasks = [start(client, "INCR", "a") for _ in range(IN_FLIGHT_MAX)]
    await until(lambda: client.in_flight == IN_FLIGHT_MAX)
    with pytest.raises(NotExecuted, match="deadline"):
        await client.execute("SET", "late", "1", deadline_ms=50)
    proxy.replies.release()
    assert await asyncio.gather(*tasks) == list(range(1, IN_FLIGHT_MAX + 1))
    assert await client.execute("EXISTS", "late") == 0


async def test_late_reply_is_dropped_and_later_ones_stay_in_order(
    proxy: Proxy, client: StoreClient
) -> None:
    await client.execute("MSET", "a", "old", "b", "new")
    proxy.replies.hold()
    first = start(client, "GET", "a", deadline_ms=50)
    later = [start(client, "ECHO", str(number)) for number in range(50)]
    assert isinstance(await first, OutcomeUnknown)
    assert client.in_flight == 51
    proxy.replies.release()
    assert await asyncio.gather(*later) == [str(number).encode() for number in range(50)]
    assert await client.execute("GET", "b") == b"new"


async def test_caller_that_goes_away_disturbs_nobody(proxy: Proxy, client: StoreClient) -> None:
    proxy.replies.hold()
    sent = start(client, "INCR", "a")
    await until(lambda: client.in_flight == 1)
    kept = [start(client, "ECHO", str(number)) for number in range(IN_FLIGHT_MAX - 1)]
    await until(lambda: client.in_flight == IN_FLIGHT_MAX)
    unsent = start(client, "SET", "never", "1")
    await until(lambda: client.queued == 1)
    for task in (sent, unsent):
        task.cancel()
    await asyncio.wait((sent, unsent))
    proxy.replies.release()
    results = await asyncio.gather(*kept)
    assert results == [str(number).encode() for number in range(IN_FLIGHT_MAX - 1)]
    assert await client.execute("MGET", "a", "never") == [b"1", None]


async def test_bytes_in_any_pieces_make_the_same_replies(
    proxy: Proxy, client: StoreClient, rng: random.Random
) -> None:
    proxy.requests.split_bytes_max = 7
    proxy.replies.split_bytes_max = 5
    values = [rng.randbytes(rng.randint(0, 60)) for _ in range(200)]
    results = await asyncio.gather(
        *(client.execute("ECHO", value, deadline_ms=LONG_MS) for value in values)
    )
    assert results == values


@pytest.mark.parametrize("reply_bytes", [0, 1, 6, 17])
async def test_cut_within_a_reply_is_unknown_and_the_next_connection_is_clean(
    proxy: Proxy, client: StoreClient, reply_bytes: int
) -> None:
    await client.execute("SET", "a", "x" * 20)
    proxy.replies.cut_after_bytes = reply_bytes
    with pytest.raises(OutcomeUnknown, match="lost"):
        await client.execute("GET", "a")
    await until(lambda: client.connected)
    assert await client.execute("GET", "a") == b"x" * 20
    assert proxy.connections == 2


async def test_cut_within_a_request_is_unknown(
    proxy: Proxy, client: StoreClient, store: StoreClient
) -> None:
    proxy.requests.cut_after_bytes = 9
    with pytest.raises(OutcomeUnknown):
        await client.execute("SET", "a", "1")
    assert await store.execute("EXISTS", "a") == 0


async def test_while_disconnected_commands_fail_at_once_and_then_work(
    proxy: Proxy, client: StoreClient
) -> None:
    await proxy.refuse()
    await until(lambda: not client.connected)
    results = await asyncio.gather(*(start(client, "INCR", "a") for _ in range(2_000)))
    assert {type(result) for result in results} == {NotExecuted}
    with pytest.raises(NotExecuted, match="not connected"):
        await client.call_script(INCREMENT, [b"a"], [])
    await proxy.listen()
    await until(lambda: client.connected)
    assert await client.call_script(INCREMENT, [b"a"], []) == 1


async def test_three_misses_count_as_down_until_a_probe_is_answered(
    proxy: Proxy, client: StoreClient
) -> None:
    proxy.replies.hold()
    for _ in range(2):
        assert isinstance(await start(client, "INCR", "a", deadline_ms=20), OutcomeUnknown)
        assert client.connected
    assert isinstance(await start(client, "INCR", "a", deadline_ms=20), OutcomeUnknown)
    assert not client.connected
    with pytest.raises(NotExecuted, match="counts as down"):
        await client.execute("INCR", "a", deadline_ms=LONG_MS)
    proxy.replies.release()
    await until(lambda: client.connected)
    assert await client.execute("INCR", "a") == 4
    assert proxy.connections == 1


async def test_an_answer_between_misses_keeps_the_store_up(
    proxy: Proxy, client: StoreClient
) -> None:
    for _ in range(3):
        proxy.replies.hold()
        for _ in range(2):
            assert isinstance(await start(client, "PING", deadline_ms=20), OutcomeUnknown)
        proxy.replies.release()
        assert await client.execute("PING") == b"PONG"
    assert client.connected


async def test_going_down_refuses_what_is_not_sent(proxy: Proxy, client: StoreClient) -> None:
    proxy.replies.hold()
    missed = [start(client, "INCR", "a", deadline_ms=100) for _ in range(IN_FLIGHT_MAX)]
    await until(lambda: client.in_flight == IN_FLIGHT_MAX)
    waiting = start(client, "INCR", "a")
    assert isinstance(await waiting, NotExecuted)
    assert {type(result) for result in await asyncio.gather(*missed)} == {OutcomeUnknown}
    proxy.replies.release()
    await until(lambda: client.connected)
    assert await client.execute("GET", "a") == b"1024"


async def test_connection_that_leads_nowhere_is_replaced(
    proxy: Proxy, client: StoreClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "_PROBES_MAX", 2)
    proxy.swallow()
    misses = await asyncio.gather(*(start(client, "INCR", "a", deadline_ms=30) for _ in range(3)))
    assert {type(result) for result in misses} == {OutcomeUnknown}
    await until(lambda: client.connected)
    assert proxy.connections == 2
    assert await client.execute("INCR", "a") == 1


@pytest.mark.parametrize("forged", [b"+OK\r\n", b"?what\r\n"])
async def test_peer_that_breaks_the_protocol_is_disconnected(
    proxy: Proxy, client: StoreClient, forged: bytes
) -> None:
    proxy.forge_reply(forged)
    await until(lambda: proxy.connections == 2 and client.connected)
    assert await client.execute("PING") == b"PONG"


async def test_answer_that_is_no_protocol_makes_the_outcome_unknown(
    proxy: Proxy, client: StoreClient
) -> None:
    proxy.replies.hold()
    task = start(client, "INCR", "a")
    await until(lambda: client.in_flight == 1)
    proxy.forge_reply(b"HTTP/1.1 400 Bad Request\r\n")
    result = await task
    assert isinstance(result, OutcomeUnknown)
    assert "protocol" in str(result)
    proxy.replies.release()


async def test_close_waits_for_what_was_sent_and_takes_nothing_more(
    proxy: Proxy, client: StoreClient
) -> None:
    proxy.replies.hold()
    tasks = [start(client, "INCR", "a") for _ in range(IN_FLIGHT_MAX + 100)]
    await until(lambda: client.in_flight == IN_FLIGHT_MAX)
    closing = asyncio.create_task(client.close())
    await asyncio.sleep(0)
    with pytest.raises(NotExecuted, match="closed"):
        await client.execute("INCR", "a")
    proxy.replies.release()
    assert await asyncio.gather(*tasks) == list(range(1, IN_FLIGHT_MAX + 101))
    await closing
    await client.close()


async def test_close_does_not_wait_for_ever(
    proxy: Proxy, client: StoreClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "_FINISH_SECONDS_MAX", 0.05)
    proxy.replies.hold()
    task = start(client, "INCR", "a")
    await until(lambda: client.in_flight == 1)
    await client.close()
    assert isinstance(await task, OutcomeUnknown)


async def test_restarted_server_is_told_by_its_run_id(tmp_path: Path) -> None:
    told: list[tuple[str, str]] = []
    with EmbeddedStore(tmp_path / "state", appendfsync="always") as server:
        client = await StoreClient.connect(server.start(), scripts=[INCREMENT])
        first = client.run_id
        client.on_run_id_change(lambda previous, present: told.append((previous, present)))
        assert await client.call_script(INCREMENT, [b"a"], []) == 1
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        await server.wait_exit()
        await until(lambda: not client.connected)
        await asyncio.to_thread(server.start)
        await until(lambda: client.connected)
        assert await client.call_script(INCREMENT, [b"a"], []) == 2
        assert told == [(first, client.run_id)]
        assert client.run_id != first
        await client.close()


async def test_same_server_again_is_no_restart(proxy: Proxy, client: StoreClient) -> None:
    told: list[tuple[str, str]] = []
    client.on_run_id_change(lambda previous, present: told.append((previous, present)))
    proxy.cut()
    await until(lambda: proxy.connections == 2 and client.connected)
    assert told == []


async def test_listener_that_fails_does_not_stop_the_client(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path / "state") as server:
        client = await StoreClient.connect(server.start())
        client.on_run_id_change(lambda previous, present: [].index(present))
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        await server.wait_exit()
        await until(lambda: not client.connected)
        await asyncio.to_thread(server.start)
        await until(lambda: client.connected)
        assert await client.execute("PING") == b"PONG"
        await client.close()


async def test_hung_server_is_found_down_and_up_again(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path / "state") as server:
        client = await StoreClient.connect(server.start())
        assert server.pid is not None
        os.kill(server.pid, signal.SIGSTOP)
        results = await asyncio.gather(
            *(start(client, "INCR", "a", deadline_ms=50) for _ in range(3))
        )
        assert {type(result) for result in results} == {OutcomeUnknown}
        assert not client.connected
        os.kill(server.pid, signal.SIGCONT)
        await until(lambda: client.connected)
        assert await client.execute("INCR", "a") == 4
        await client.close()


async def test_start_without_a_store_waits_for_it(tmp_path: Path) -> None:
    server = EmbeddedStore(tmp_path / "state")
    url = f"unix://{tmp_path}/state/store.sock"
    with pytest.raises(NotExecuted, match="cannot be reached"):
        await StoreClient.connect(url)
    client = await StoreClient.connect(url, must_answer=False)
    with pytest.raises(NotExecuted, match="not connected"):
        await client.execute("PING")
    with server:
        await until(lambda: client.connected)
        assert await client.execute("PING") == b"PONG"
    await client.close()
