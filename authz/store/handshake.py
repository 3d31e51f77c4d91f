"""Opens a connection to the store and greets it: user, database, name, scripts, run id."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from authz import meters
from authz.errors import AuthzError, ConfigError, NotExecuted, StoreReplyError
from authz.store.connection import Connection, pack_command
from authz.store.health import StoreHealth
from authz.store.url import StoreAddress

if TYPE_CHECKING:
    from authz.store.scripts import Script

#: A silent TCP peer is asked for a sign of life after this time, and given up after three.
_KEEPALIVE_IDLE_SECONDS: Final = 30
_KEEPALIVE_INTERVAL_SECONDS: Final = 5
_KEEPALIVE_PROBES: Final = 3

_REFUSED_CODES: Final = frozenset({"NOAUTH", "NOPERM", "WRONGPASS"})


async def open_connection(
    address: StoreAddress,
    health: StoreHealth,
    *,
    scripts: Iterable[Script],
    client_name: str,
    timeout_ms: int,
) -> tuple[Connection, str]:
    """Connect, greet, load the scripts; return the connection and the server's run id.

    Raises NotExecuted when the store cannot be reached or is not ready (loading, a replica), and
    ConfigError when it can be reached but not used as configured (password, certificate, version).
    """
    loop = asyncio.get_running_loop()
    deadline_ns = meters.now_ns() + timeout_ms * 1_000_000
    connection = Connection(loop, health)
    try:
        async with asyncio.timeout(timeout_ms / 1000):
            await _connect(loop, connection, address)
            run_id = await _greet(connection, address, scripts, client_name, deadline_ns)
    except (AuthzError, OSError) as error:
        connection.abort("the greeting failed")
        # The first error's text may repeat the password: it must not hang on to the new one.
        raise _explain(error, address, timeout_ms) from None
    except BaseException:
        connection.abort("the greeting was given up")
        raise
    return connection, run_id


async def _connect(
    loop: asyncio.AbstractEventLoop, connection: Connection, address: StoreAddress
) -> None:
    def protocol() -> Connection:
        return connection

    if address.socket_path:
        await loop.create_unix_connection(protocol, address.socket_path)
        return
    context = address.ssl_context()
    transport, _ = await loop.create_connection(
        protocol,
        address.host,
        address.port,
        ssl=context,
        server_hostname=address.host if context is not None else None,
    )
    stream: socket.socket = transport.get_extra_info("socket")
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", _KEEPALIVE_IDLE_SECONDS),
        ("TCP_KEEPINTVL", _KEEPALIVE_INTERVAL_SECONDS),
        ("TCP_KEEPCNT", _KEEPALIVE_PROBES),
    ):
        if hasattr(socket, name):
            stream.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def _greet(
    connection: Connection,
    address: StoreAddress,
    scripts: Iterable[Script],
    client_name: str,
    deadline_ns: int,
) -> str:
    hello: tuple[str, ...] = ("HELLO", "2")
    if address.password is not None:
        hello += ("AUTH", address.username or "default", address.password)
    # PING is refused by a server that is loading or has lost its disk; HELLO and INFO are not.
    commands: list[tuple[str, ...]] = [
        (*hello, "SETNAME", client_name),
        ("SELECT", str(address.database)),
        ("PING",),
        ("INFO", "server"),
        *(("SCRIPT", "LOAD", script.source) for script in scripts),
    ]
    replies: list[Any] = await asyncio.gather(
        *(connection.submit(pack_command(command), deadline_ns) for command in commands),
        return_exceptions=True,
    )
    for reply in replies:
        if isinstance(reply, BaseException):
            raise reply
    if _field_of_hello(replies[0], b"role") != b"master":
        raise NotExecuted("it is a replica", "READONLY")
    run_id = parse_info(replies[3]).get("run_id")
    if not run_id:
        raise ConfigError("store.url: the server's INFO tells no run_id; authz cannot work with it")
    return run_id


def _field_of_hello(reply: list[Any], name: bytes) -> Any:
    return dict(zip(reply[::2], reply[1::2], strict=True)).get(name)


def parse_info(reply: bytes) -> dict[str, str]:
    """Return the fields of an INFO reply."""
    lines = reply.decode("utf-8", "replace").splitlines()
    pairs = (line.partition(":") for line in lines if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}


def _explain(
    error: AuthzError | OSError, address: StoreAddress, timeout_ms: int
) -> NotExecuted | ConfigError:
    """Return the error of a failed start for callers: it names the store, never a secret."""
    where = f"the store at {address.display}"
    if "max number of clients" in str(error):
        # Said unasked or in answer to the greeting, as it happens.
        return NotExecuted(f"{where} takes no more connections: raise its maxclients")
    match error:
        case ConfigError():
            return error
        case ssl.SSLCertVerificationError():
            return ConfigError(
                f"{where} has a certificate that is not trusted: {error.verify_message}; "
                "give its authority with ssl_ca_certs"
            )
        case TimeoutError():
            return NotExecuted(f"{where} did not answer within {timeout_ms} ms")
        case OSError():
            return NotExecuted(f"{where} cannot be reached: {error}")
        case StoreReplyError() if error.code in _REFUSED_CODES:
            return ConfigError(f"{where} refuses the user or password: {error.code}")
        case StoreReplyError() if "unknown command" in str(error).lower():
            return ConfigError(f"{where} is too old; Redis 6.2 or newer, or Valkey, is needed")
        case StoreReplyError():
            text = _without(str(error), address.password)
            return ConfigError(f"{where} cannot be used: {text}")
        case NotExecuted():
            return NotExecuted(f"{where} is not ready: {error}", error.code)
        case _:
            return NotExecuted(f"{where} is not ready: {error}")


def _without(text: str, secret: str | None) -> str:
    return text.replace(secret, "***") if secret else text
