"""Fixtures of all tests: real stores, fresh for each test, and reproducible randomness.

- `store_server`, `store_url`, `store`: Valkey; the server, its URL, a connected client.
- `any_store_server`, `any_store_url`, `any_store`: the same on every kind of server there is.
- `archive_url`: an empty database, SQLite and PostgreSQL in turn; `postgres_server` for more of the
  latter.
- `rabbit_server`: a RabbitMQ without queues. Without one tests are skipped, but never in CI.
- Tests run on asyncio's own event loop; those of a module with `EVERY_LOOP = True` also on uvloop,
  the daemon's.
- `tally`: what the meters count from the beginning of the test.
- `plain_logging`: the log as it was, for tests that run commands in this process.
- `rng`: a random generator; the session's seed is in pytest's header, AUTHZ_TEST_SEED repeats it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from audit_helper import assert_clean_audit
from hypothesis import settings
from postgres import PostgresServer
from rabbitmq import RabbitServer, find_rabbitmq
from servers import DEFAULT_KIND, Server, ServerPool, find_servers
from tally import Tally
from world import World

from authz.store.client import StoreClient

# CI repeats one seed, so that it judges the change and not the luck of the draw; every other run
# draws a new one.
_IN_CI = os.environ.get("CI") == "true"
_SEED = os.environ.get("AUTHZ_TEST_SEED") or ("1" if _IN_CI else str(secrets.randbits(32)))
_SEED_KEY = pytest.StashKey[str]()
# No test asserts a time, so none of its examples may either.
settings.register_profile("authz", deadline=None, derandomize=_IN_CI, print_blob=True)
settings.load_profile("authz")
try:
    _SERVERS = find_servers()
except LookupError as error:
    raise pytest.UsageError(str(error)) from error


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give a worker of xdist the seed that the header names, not one of its own."""
    node.workerinput["authz_seed"] = _SEED


def pytest_configure(config: pytest.Config) -> None:
    """Settle which seed this process uses."""
    given = getattr(config, "workerinput", {})
    config.stash[_SEED_KEY] = given.get("authz_seed", _SEED)


def pytest_report_header() -> list[str]:
    """Say what a failure needs to be repeated."""
    return [
        f"AUTHZ_TEST_SEED={_SEED}",
        "stores: " + ", ".join(f"{kind} ({path})" for kind, path in _SERVERS.items()),
    ]


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Choose the event loops that a test runs on."""
    loops = {"asyncio": asyncio.new_event_loop}
    if getattr(item.getparent(pytest.Module).module, "EVERY_LOOP", False):
        loops["uvloop"] = uvloop.new_event_loop
    return loops


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """A generator that depends on the session's seed and the test's name alone."""
    return random.Random(f"{request.config.stash[_SEED_KEY]}:{request.node.nodeid}")


@pytest.fixture
def tally() -> Tally:
    """What this process's meters count from here on."""
    return Tally()


@pytest.fixture(scope="session")
def server_pool() -> Iterator[ServerPool]:
    """The stores of this session."""
    pool = ServerPool(_SERVERS)
    yield pool
    pool.close()


@pytest.fixture
def store_server(server_pool: ServerPool) -> Server:
    """A Valkey without data."""
    return server_pool.get(DEFAULT_KIND)


@pytest.fixture
def store_url(store_server: Server) -> str:
    """The URL of a Valkey without data."""
    return store_server.url


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[StoreClient]:
    """A client of a Valkey without data."""
    client = await StoreClient.connect(store_url)
    yield client
    await client.close()


@pytest.fixture(params=list(_SERVERS))
def any_store_server(request: pytest.FixtureRequest, server_pool: ServerPool) -> Server:
    """A store without data, of each kind in turn."""
    return server_pool.get(request.param)


@pytest.fixture
def any_store_url(any_store_server: Server) -> str:
    """The URL of a store without data, of each kind in turn."""
    return any_store_server.url


@pytest.fixture
async def any_store(any_store_url: str) -> AsyncIterator[StoreClient]:
    """A client of a store without data, of each kind in turn."""
    client = await StoreClient.connect(any_store_url)
    yield client
    await client.close()


@pytest.fixture
async def world(any_store_url: str, tmp_path: Path) -> AsyncIterator[World]:
    """An empty business on every kind of store; each test that uses it ends with the audit."""
    world = await World.start(any_store_url, tmp_path)
    yield world
    await assert_clean_audit(world.client)
    await world.close()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The PostgreSQL server of this session."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def archive_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'archive.sqlite'}"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.new_database()


@pytest.fixture
def plain_logging() -> Iterator[None]:
    """Commands set up the process's log; tests that come later want it as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("authz").setLevel(logging.NOTSET)
    logging.captureWarnings(False)


@pytest.fixture(scope="session")
def rabbit_node() -> Iterator[RabbitServer]:
    """The RabbitMQ node of this session."""
    try:
        find_rabbitmq()
    except LookupError as error:
        if _IN_CI:
            raise
        pytest.skip(str(error))
    server = RabbitServer()
    yield server
    server.close()


@pytest.fixture
async def rabbit_server(rabbit_node: RabbitServer) -> RabbitServer:
    """A RabbitMQ node that has Kazoo's exchanges and no queues."""
    await rabbit_node.reset()
    return rabbit_node
