"""Where the store is: `redis://`, `rediss://` and `unix://` URLs, taken apart and checked.

Secrets never leave this module in clear: not in `repr`, not in `display`, not in an error's text.
"""

from __future__ import annotations

import difflib
import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from authz.errors import ConfigError

PORT_DEFAULT: Final = 6379
#: Bytes a Unix socket's path may have: `sun_path` of Linux, less its closing NUL.
SOCKET_PATH_BYTES_MAX: Final = 107

_SCHEMES: Final = ("redis", "rediss", "unix")
#: Options carry the names redis-py gives them, so that one URL serves both clients.
_OPTIONS_OF_ALL: Final = ("db", "username", "password")
_OPTIONS_OF_TLS: Final = (
    "ssl_ca_certs",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_cert_reqs",
    "ssl_check_hostname",
)
_ENCODE_HINT: Final = (
    "in a user or password write / ? # [ ] @ : and % percent-encoded (%2F %3F %23 %5B %5D %40 "
    "%3A %25)"
)


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """How a `rediss://` connection is secured. Files are paths; None means the system's."""

    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    verify_certificate: bool = True
    verify_hostname: bool = True


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """A store's address. Exactly one of `socket_path` and `host` is set; `port` goes with `host`.

    `tls` is only ever true with `host`. `database` is the number given to SELECT.
    """

    host: str = ""
    port: int = PORT_DEFAULT
    socket_path: str = ""
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls_options: TlsOptions | None = None

    @property
    def display(self) -> str:
        """The address for logs and messages: without user and password."""
        database = f"/{self.database}" if self.database else ""
        if self.socket_path:
            return f"unix://{self.socket_path}" + (f"?db={self.database}" if database else "")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.tls_options else 'redis'}://{host}:{self.port}{database}"

    def ssl_context(self) -> ssl.SSLContext | None:
        """Return the TLS context of a `rediss://` address, else None.

        Raises ConfigError when a certificate or key file cannot be used.
        """
        options = self.tls_options
        if options is None:
            return None
        try:
            context = ssl.create_default_context(cafile=options.ca_file)
        except OSError as error:
            raise ConfigError(
                f"store.url: ssl_ca_certs {options.ca_file!r} cannot be used: {error}"
            ) from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = options.verify_hostname and options.verify_certificate
        if not options.verify_certificate:
            context.verify_mode = ssl.CERT_NONE
        if options.certificate_file is not None:
            try:
                context.load_cert_chain(options.certificate_file, options.key_file)
            except OSError as error:
                raise ConfigError(
                    f"store.url: ssl_certfile {options.certificate_file!r} with ssl_keyfile "
                    f"{options.key_file!r} cannot be used: {error}"
                ) from error
        return context


def unix_url(socket_path: str | Path) -> str:
    """Return the URL of a store that listens on this Unix socket, database 0."""
    return "unix://" + quote(os.fspath(socket_path))


def parse_store_url(url: str) -> StoreAddress:
    """Take a store's URL apart. Raises ConfigError that names what is wrong, never a secret."""
    # A secret that is not encoded ends the host part early: what follows it must not be quoted
    # in a message, and an "@" out of place is how to know.
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _SCHEMES:
        raise ConfigError(
            "store.url: must start with redis://, rediss:// (TLS) or unix:// (socket path)"
        )
    if "@" in rest[len(rest.split("/", 1)[0].split("?", 1)[0].split("#", 1)[0]) :]:
        raise ConfigError(f"store.url: an @ after the end of the host part; {_ENCODE_HINT}")
    try:
        parts = urlsplit(url)
    except ValueError:
        # From None, here and below: the parser's own text quotes what may be a password.
        raise ConfigError(f"store.url: the host part cannot be read; {_ENCODE_HINT}") from None
    if parts.fragment:
        raise ConfigError(f"store.url: has a # part; {_ENCODE_HINT}")
    options = _read_options(parts)
    username, password = _read_credentials(parts, options)
    if scheme == "unix":
        return StoreAddress(
            socket_path=_read_socket_path(parts),
            database=_read_database(options.get("db", "0")),
            username=username,
            password=password,
        )
    host, port = _read_host(parts)
    path = parts.path.strip("/")
    if path and "db" in options:
        raise ConfigError("store.url: the database is given twice, as path and as db=")
    return StoreAddress(
        host=host,
        port=port,
        database=_read_database(path or options.get("db", "0")),
        username=username,
        password=password,
        tls_options=_read_tls(options) if scheme == "rediss" else None,
    )


def _read_options(parts: SplitResult) -> dict[str, str]:
    known = _OPTIONS_OF_ALL + (_OPTIONS_OF_TLS if parts.scheme == "rediss" else ())
    try:
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise ConfigError(
            "store.url: the part after ? must be name=value pairs joined by &"
        ) from None
    options: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"
            if parts.scheme != "rediss" and name in _OPTIONS_OF_TLS:
                hint = "; it needs rediss://"
            raise ConfigError(f"store.url: unknown option {name}{hint}")
        if name in options:
            raise ConfigError(f"store.url: option {name} is given twice")
        if not value:
            raise ConfigError(f"store.url: option {name} is empty")
        options[name] = value
    return options


def _read_credentials(parts: SplitResult, options: dict[str, str]) -> tuple[str | None, str | None]:
    for name, part in (("username", parts.username), ("password", parts.password)):
        if part and name in options:
            raise ConfigError(f"store.url: the {name} is given twice, before @ and as {name}=")
    username = unquote(parts.username) if parts.username else options.get("username")
    password = unquote(parts.password) if parts.password else options.get("password")
    if username is not None and password is None:
        raise ConfigError(
            "store.url: a user without a password; write user:password@ "
            "or, for the default user, :password@"
        )
    return username, password


def _read_host(parts: SplitResult) -> tuple[str, int]:
    try:
        port = parts.port
    except ValueError:
        raise ConfigError(
            f"store.url: the port must be a number from 1 to 65535; {_ENCODE_HINT}"
        ) from None
    if port == 0:
        raise ConfigError("store.url: the port must be a number from 1 to 65535")
    if not parts.hostname:
        raise ConfigError("store.url: the host is missing, as in redis://127.0.0.1:6379/0")
    return parts.hostname, port or PORT_DEFAULT


def _read_socket_path(parts: SplitResult) -> str:
    if parts.netloc.rpartition("@")[2]:
        raise ConfigError(
            "store.url: a unix:// URL has three slashes before an absolute path, "
            "as in unix:///run/valkey/valkey.sock"
        )
    path = unquote(parts.path)
    if path in ("", "/"):
        raise ConfigError("store.url: the socket's path is missing, as in unix:///run/store.sock")
    size_bytes = len(os.fsencode(path))
    if size_bytes > SOCKET_PATH_BYTES_MAX:
        raise ConfigError(
            f"store.url: the socket's path has {size_bytes} bytes; "
            f"the system takes at most {SOCKET_PATH_BYTES_MAX}"
        )
    return path


def _read_database(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 5:
        raise ConfigError("store.url: the database must be a number, as in /0 or ?db=0")
    return int(text)


def _read_tls(options: dict[str, str]) -> TlsOptions:
    if "ssl_keyfile" in options and "ssl_certfile" not in options:
        raise ConfigError("store.url: ssl_keyfile needs ssl_certfile")
    requirement = options.get("ssl_cert_reqs", "required")
    if requirement not in ("required", "none"):
        raise ConfigError("store.url: ssl_cert_reqs must be required or none")
    hostname = options.get("ssl_check_hostname", "true").lower()
    if hostname not in ("true", "false"):
        raise ConfigError("store.url: ssl_check_hostname must be true or false")
    return TlsOptions(
        ca_file=options.get("ssl_ca_certs"),
        certificate_file=options.get("ssl_certfile"),
        key_file=options.get("ssl_keyfile"),
        verify_certificate=requirement == "required",
        verify_hostname=hostname == "true",
    )
