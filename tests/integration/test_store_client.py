"""The store client on real servers: replies, refusals, scripts, credentials, TLS, checks."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest
from certificates import make_certificates
from helpers import make_script, until
from proxy import Proxy
from servers import Server, find_servers

from authz.errors import ConfigError, InvariantError, NotExecuted, StoreReplyError
from authz.store.admin_client import admin_client
from authz.store.checks import check_server, memory_ratio
from authz.store.client import StoreClient
from authz.store.embedded import EmbeddedStore
from authz.store.scripts import Script
from authz.store.url import parse_store_url

#: Both event loops: conftest.py.
EVERY_LOOP = True
PASSWORD = "open/sesame?#@:%"


INCREMENT = make_script("increment", "return redis.call('INCRBY', KEYS[1], ARGV[1])")
WRITE = make_script("write", "redis.call('SET', KEYS[1], 'x') return 1")


async def test_replies_of_every_type(any_store: StoreClient) -> None:
    assert any_store.connected
    assert await any_store.execute("SET", b"\x00k", "é") == b"OK"
    assert await any_store.execute("GET", b"\x00k") == "é".encode()
    assert await any_store.execute("GET", "none") is None
    assert await any_store.execute("INCRBY", "n", 2**53) == 2**53
    assert await any_store.execute("MGET", "n", "none") == [b"%d" % 2**53, None]
    nested = "return {1, {false, 'x'}, redis.error_reply('ERR inner')}"
    reply = await any_store.execute("EVAL", nested, 0)
    assert reply[:2] == [1, [None, b"x"]]
    assert isinstance(reply[2], StoreReplyError)
    large = b"x" * 3_000_000
    await any_store.execute("SET", "large", large)
    assert await any_store.execute("GET", "large") == large


async def test_errors_of_the_command_are_told_by_code(any_store: StoreClient) -> None:
    await any_store.execute("SET", "a", "text")
    for command, code in ((("LPUSH", "a", "x"), "WRONGTYPE"), (("INCR", "a"), "ERR")):
        with pytest.raises(StoreReplyError) as caught:
            await any_store.execute(*command)
        assert caught.value.code == code
    assert await any_store.execute("GET", "a") == b"text"


async def test_script_is_given_to_a_server_that_has_forgotten_it(any_store: StoreClient) -> None:
    results = await asyncio.gather(
        *(any_store.call_script(INCREMENT, [b"a"], [1]) for _ in range(100))
    )
    assert results == list(range(1, 101))
    await any_store.execute("SCRIPT", "FLUSH")
    results = await asyncio.gather(
        *(any_store.call_script(INCREMENT, [b"a"], [1], deadline_ms=90_000) for _ in range(500))
    )
    assert sorted(results) == list(range(101, 601))


async def test_scripts_are_loaded_on_connect(any_store_url: str) -> None:
    client = await StoreClient.connect(any_store_url, scripts=[INCREMENT, WRITE])
    found = await client.execute("SCRIPT", "EXISTS", INCREMENT.sha1, WRITE.sha1)
    assert found == [1, 1]
    await client.close()


async def test_script_that_does_not_compile_is_refused_on_connect(any_store_url: str) -> None:
    with pytest.raises(ConfigError, match="compiling"):
        await StoreClient.connect(any_store_url, scripts=[make_script("broken", "return (")])


async def test_wrong_use_of_a_script_is_found(store: StoreClient) -> None:
    with pytest.raises(InvariantError, match="takes 1 keys, got 2"):
        await store.call_script(INCREMENT, [b"a", b"b"], [1])
    with pytest.raises(InvariantError, match="SHA-1"):
        await store.call_script(Script("other", 1, "return 1", "0" * 40), [b"a"], [])


async def test_full_memory_is_not_executed_for_commands_and_scripts(any_store: StoreClient) -> None:
    await any_store.call_script(WRITE, [b"a"], [])
    await any_store.execute("CONFIG", "SET", "maxmemory", 1)
    for attempt in (
        any_store.execute("SET", "b", "x"),
        any_store.call_script(WRITE, [b"b"], []),
    ):
        with pytest.raises(NotExecuted) as caught:
            await attempt
        assert caught.value.code == "OOM"
    assert await any_store.execute("EXISTS", "b") == 0
    assert await memory_ratio(any_store) > 1
    await any_store.execute("CONFIG", "SET", "maxmemory", 0)
    assert await memory_ratio(any_store) == 0


async def test_missing_replicas_are_not_executed(any_store: StoreClient) -> None:
    await any_store.call_script(WRITE, [b"a"], [])
    await any_store.execute("CONFIG", "SET", "min-replicas-to-write", 1)
    try:
        for attempt in (
            any_store.execute("SET", "b", "x"),
            any_store.call_script(WRITE, [b"b"], []),
        ):
            with pytest.raises(NotExecuted) as caught:
                await attempt
            assert caught.value.code == "NOREPLICAS"
    finally:
        await any_store.execute("CONFIG", "SET", "min-replicas-to-write", 0)


async def test_server_that_becomes_a_replica_is_left_until_it_is_master_again(
    any_store: StoreClient, any_store_url: str
) -> None:
    await any_store.call_script(WRITE, [b"a"], [])
    admin = admin_client(any_store_url)
    # A master that does not exist: the server is a replica whose data does not change.
    await admin.config_set("replica-serve-stale-data", "yes")
    await admin.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        with pytest.raises(NotExecuted) as caught:
            await any_store.call_script(WRITE, [b"b"], [])
        assert caught.value.code == "READONLY"
        await until(lambda: not any_store.connected)
        with pytest.raises(NotExecuted, match="replica"):
            await StoreClient.connect(any_store_url)
    finally:
        await admin.execute_command("REPLICAOF", "NO", "ONE")
        await admin.aclose()
    await until(lambda: any_store.connected)
    assert await any_store.call_script(WRITE, [b"b"], []) == 1


async def test_server_busy_with_a_script_is_not_executed(any_store_url: str) -> None:
    client = await StoreClient.connect(any_store_url)
    other = await StoreClient.connect(any_store_url)
    await client.execute("CONFIG", "SET", "lua-time-limit", 10)
    endless = asyncio.create_task(client.execute("EVAL", "while true do end", 0, deadline_ms=9_000))
    codes = []
    while "BUSY" not in codes:
        try:
            await other.execute("SET", "a", "1", deadline_ms=5_000)
        except NotExecuted as error:
            codes.append(error.code)
    await other.execute("SCRIPT", "KILL")
    with pytest.raises(StoreReplyError):
        await endless
    assert await other.execute("EXISTS", "a") in (0, 1)
    await client.execute("CONFIG", "SET", "lua-time-limit", 5_000)
    await client.close()
    await other.close()


@pytest.mark.parametrize("binary", find_servers().values(), ids=find_servers())
async def test_server_that_loads_its_data_is_not_ready(tmp_path: Path, binary: Path) -> None:
    state_dir = tmp_path / "state"
    with EmbeddedStore(state_dir, server=binary) as server:
        client = await StoreClient.connect(server.url)
        fill = "for i = 1, 3000 do redis.call('SET', i, i) end return redis.call('DBSIZE')"
        assert await client.execute("EVAL", fill, 0) == 3_000
        await client.close()
    url = f"unix://{state_dir}/store.sock"
    # Half a second at least: 3,000 keys with 200 microseconds of delay each.
    slow = EmbeddedStore(state_dir, server=binary, options={"key-load-delay": "200"})
    starting = asyncio.create_task(asyncio.to_thread(slow.start))
    codes = set()
    while not starting.done():
        try:
            await (await StoreClient.connect(url)).close()
        except NotExecuted as error:
            codes.add(error.code)
        await asyncio.sleep(0.01)
    await starting
    client = await StoreClient.connect(url)
    assert await client.execute("DBSIZE") == 3_000
    assert "LOADING" in codes
    await client.close()
    await asyncio.to_thread(slow.stop)


async def test_cluster_without_slots_is_not_executed(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path / "state", options={"cluster-enabled": "yes"}) as server:
        client = await StoreClient.connect(server.url)
        with pytest.raises(NotExecuted) as caught:
            await client.execute("SET", "a", "1")
        assert caught.value.code == "CLUSTERDOWN"
        await client.close()


async def test_database_and_name_are_set_on_every_connection(any_store_url: str) -> None:
    client = await StoreClient.connect(f"{any_store_url}?db=3", client_name="authz-office")
    assert b"name=authz-office" in await client.execute("CLIENT", "LIST")
    await client.execute("SET", "a", "1")
    await client.execute("CLIENT", "KILL", "ID", await client.execute("CLIENT", "ID"))
    await until(lambda: client.connected)
    assert await client.execute("GET", "a") == b"1"
    await client.close()
    with pytest.raises(ConfigError, match="DB index"):
        await StoreClient.connect(f"{any_store_url}?db=9999")


async def test_password_and_user(any_store: StoreClient, any_store_url: str) -> None:
    path = parse_store_url(any_store_url).socket_path
    secret = quote(PASSWORD, safe="")
    user_rules = ("on", f">{PASSWORD}", "~*", "+@all")
    await any_store.execute("ACL", "SETUSER", "operator", *user_rules)
    await any_store.execute("CONFIG", "SET", "requirepass", PASSWORD)
    for url in (
        f"unix://:{secret}@{path}",
        f"unix://operator:{secret}@{path}",
        f"unix://{path}?username=operator&password={secret}",
    ):
        client = await StoreClient.connect(url)
        assert await client.execute("PING") == b"PONG"
        assert PASSWORD not in client.address
        await client.close()
        admin = admin_client(url)
        assert await admin.ping()
        await admin.aclose()
    for url in (any_store_url, f"unix://:{secret}x@{path}", f"unix://nobody:{secret}@{path}"):
        with pytest.raises(ConfigError, match="refuses the user or password") as caught:
            await StoreClient.connect(url)
        assert PASSWORD not in str(caught.value)
        assert caught.value.__suppress_context__
    await any_store.execute("ACL", "DELUSER", "operator")
    await any_store.execute("CONFIG", "SET", "requirepass", "")


async def test_old_server_does_not_get_the_password_into_a_message(tmp_path: Path) -> None:
    binary = find_servers()["redis62"]
    # A server before Redis 6 does not know HELLO and repeats what it was told.
    config = tmp_path / "old.conf"
    config.write_text('rename-command HELLO ""\n')
    wrapper = tmp_path / "redis-server"
    wrapper.write_text(f'#!/bin/sh\nexec {binary} {config} "$@"\n')
    wrapper.chmod(0o755)
    with EmbeddedStore(tmp_path / "state", server=wrapper) as server:
        path = parse_store_url(server.url).socket_path
        with pytest.raises(ConfigError, match="too old") as caught:
            await StoreClient.connect(f"unix://:{quote(PASSWORD, safe='')}@{path}")
    assert PASSWORD not in str(caught.value)
    assert "sesame" not in str(caught.value)


async def test_too_many_clients_is_not_a_wrong_configuration(any_store: StoreClient) -> None:
    url = any_store.address
    await any_store.execute("CONFIG", "SET", "maxclients", 1)
    try:
        with pytest.raises(NotExecuted, match="maxclients"):
            await StoreClient.connect(url)
    finally:
        await any_store.execute("CONFIG", "SET", "maxclients", 10_000)


# --- TLS: a proxy speaks it, since not every server binary does ------------------------------


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority (ca.pem), a server's (server.*) and a client's (client.*)."""
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder)
    return folder


@pytest.fixture
async def tls_proxy(store_server: Server, certificates: Path) -> AsyncIterator[Proxy]:
    context = ssl.create_default_context(
        ssl.Purpose.CLIENT_AUTH, cafile=str(certificates / "ca.pem")
    )
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    context.verify_mode = ssl.CERT_OPTIONAL
    async with Proxy(parse_store_url(store_server.url).socket_path, tls=context) as proxy:
        yield proxy


async def test_tls_with_own_authority_and_client_certificate(
    tls_proxy: Proxy, certificates: Path
) -> None:
    url = (
        f"rediss://127.0.0.1:{tls_proxy.port}/1?ssl_ca_certs={certificates}/ca.pem"
        f"&ssl_certfile={certificates}/client.pem&ssl_keyfile={certificates}/client.key"
    )
    client = await StoreClient.connect(url)
    await client.execute("SET", "a", b"x" * 100_000)
    admin = admin_client(url)
    assert await admin.get("a") == b"x" * 100_000
    await admin.aclose()
    await client.close()


async def test_tls_refuses_whom_it_cannot_verify(tls_proxy: Proxy, certificates: Path) -> None:
    with pytest.raises(ConfigError, match="not trusted"):
        await StoreClient.connect(f"rediss://127.0.0.1:{tls_proxy.port}")
    by_name = f"rediss://localhost:{tls_proxy.port}?ssl_ca_certs={certificates}/ca.pem"
    with pytest.raises(ConfigError, match="not trusted"):
        await StoreClient.connect(by_name)
    for url in (
        f"{by_name}&ssl_check_hostname=false",
        f"rediss://127.0.0.1:{tls_proxy.port}?ssl_cert_reqs=none",
    ):
        client = await StoreClient.connect(url)
        assert await client.execute("PING") == b"PONG"
        await client.close()


async def test_wrong_port_and_wrong_protocol_are_told(
    tls_proxy: Proxy, store_server: Server
) -> None:
    with pytest.raises(NotExecuted, match=r"127\.0\.0\.1:1 cannot be reached"):
        await StoreClient.connect("redis://127.0.0.1:1")
    async with Proxy(parse_store_url(store_server.url).socket_path) as plain:
        with pytest.raises(NotExecuted, match=f":{plain.port}"):
            await StoreClient.connect(f"rediss://127.0.0.1:{plain.port}", connect_timeout_ms=500)
    with pytest.raises(NotExecuted, match=f":{tls_proxy.port}"):
        await StoreClient.connect(f"redis://127.0.0.1:{tls_proxy.port}", connect_timeout_ms=500)


# --- Checks at start -------------------------------------------------------------------------


async def test_embedded_store_passes_the_checks(any_store: StoreClient) -> None:
    assert await check_server(any_store) == []


async def test_eviction_is_refused_with_what_to_do(any_store: StoreClient) -> None:
    await any_store.execute("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(ConfigError, match="set maxmemory-policy noeviction"):
            await check_server(any_store)
    finally:
        await any_store.execute("CONFIG", "SET", "maxmemory-policy", "noeviction")


async def test_missing_append_only_file_is_warned_of(any_store: StoreClient) -> None:
    await any_store.execute("CONFIG", "SET", "appendonly", "no")
    try:
        (warning,) = await check_server(any_store)
        assert "set appendonly yes" in warning
    finally:
        await any_store.execute("CONFIG", "SET", "appendonly", "yes")


@pytest.mark.parametrize("binary", find_servers().values(), ids=find_servers())
async def test_replicas_without_a_minimum_are_warned_of(tmp_path: Path, binary: Path) -> None:
    with (
        EmbeddedStore(tmp_path / "a", server=binary) as server,
        EmbeddedStore(tmp_path / "b", server=binary) as other,
    ):
        async with Proxy(parse_store_url(server.url).socket_path) as way:
            replica = await StoreClient.connect(other.url)
            await replica.execute("REPLICAOF", "127.0.0.1", way.port)
            client = await StoreClient.connect(server.url)
            while b"connected_slaves:1" not in await client.execute("INFO", "replication"):
                pass
            (warning,) = await check_server(client)
            assert "set min-replicas-to-write 1" in warning
            await client.execute("CONFIG", "SET", "min-replicas-to-write", 1)
            assert await check_server(client) == []
            await replica.execute("REPLICAOF", "NO", "ONE")
            await replica.close()
            await client.close()
