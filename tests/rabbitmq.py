"""A real RabbitMQ node for the tests, started once a session, on loopback alone.

Erlang's port mapper comes with it, on a port of its own: one that the machine has may be another
user's, and one that Erlang starts would outlive the tests.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import aio_pika
from certificates import make_certificates
from ports import free_port

from authz.hooks.kazoo.topology import EXCHANGES

_START_SECONDS_MAX: Final = 90
_PAUSE_SECONDS: Final = 0.1
_GREETING: Final = b"AMQP\x00\x00\x09\x01"
_METHOD_FRAME: Final = b"\x01"
_HOST: Final = "127.0.0.1"
#: Two schedulers that do not spin: the tests share the machine with the node.
_ERLANG: Final = (
    "-noinput -kernel inet_dist_use_interface {127,0,0,1} "
    "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none"
)
#: The first lets guest log in over any address; watermarks suit a small machine. Clients that
#: encrypt may have a certificate, and are then asked for it.
_CONFIGURATION: Final = """\
loopback_users = none
vm_memory_high_watermark.absolute = 512MB
disk_free_limit.absolute = 1MB
load_definitions = {home}/definitions
listeners.ssl.1 = {host}:{tls_port}
ssl_options.cacertfile = {home}/ca.pem
ssl_options.certfile = {home}/server.pem
ssl_options.keyfile = {home}/server.key
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = false
"""
#: The broker of another zone as its clients see one: exchanges and queues of its own.
_OTHER_HOST: Final = "east"


def find_rabbitmq() -> Path:
    """Return the script that starts a node. Raises LookupError when this machine has none.

    The one in /usr/sbin insists on the system's own user and directories.
    """
    for script in (Path("/usr/lib/rabbitmq/bin/rabbitmq-server"), shutil.which("rabbitmq-server")):
        if script is not None and os.access(script, os.X_OK) and shutil.which("epmd"):
            return Path(script)
    raise LookupError("no RabbitMQ server: apt-get install rabbitmq-server")


def _unprivileged() -> dict[str, Any]:
    """Return whom the node runs as: nothing of it needs root."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _definitions() -> str:
    """Return the user and the virtual hosts of a node that nobody has to set up."""
    salt = b"salt"
    digest = salt + hashlib.sha256(salt + b"guest").digest()
    user = {"name": "guest", "password_hash": base64.b64encode(digest).decode(), "tags": ""}
    hosts = ["/", _OTHER_HOST]
    rights = {"user": "guest", "configure": ".*", "write": ".*", "read": ".*"}
    return json.dumps(
        {
            "users": [user],
            "vhosts": [{"name": name} for name in hosts],
            "permissions": [{"vhost": name, **rights} for name in hosts],
        }
    )


class RabbitServer:
    """A running node. Its exchanges are Kazoo's and stay; `reset` makes it as good as new."""

    def __init__(self) -> None:
        script = find_rabbitmq()
        self._owner = _unprivileged()
        self._directory = tempfile.TemporaryDirectory(prefix="authz-test-")
        self.home = Path(self._directory.name)
        (self.home / "plugins").write_text("[].")
        (self.home / "definitions").write_text(_definitions())
        make_certificates(self.home)
        self.port, self.tls_port, mapper_port, distribution_port = (free_port() for _ in range(4))
        (self.home / "rabbit.conf").write_text(
            _CONFIGURATION.format(home=self.home, host=_HOST, tls_port=self.tls_port)
        )
        if self._owner:
            for path in (self.home, *self.home.iterdir()):
                os.chown(path, self._owner["user"], self._owner["group"])
        self.url = f"amqp://guest:guest@{_HOST}:{self.port}/"
        self.other_url = self.url + _OTHER_HOST
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": _HOST,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "RABBITMQ_MNESIA_BASE": str(self.home / "data"),
            "RABBITMQ_LOG_BASE": str(self.home / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.home / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(self.home / "rabbit"),
            "RABBITMQ_CONF_ENV_FILE": str(self.home / "none"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": _ERLANG,
            # The script then becomes the node, instead of watching over it.
            "RABBITMQ_ALLOW_INPUT": "true",
            "ERL_EPMD_PORT": str(mapper_port),
            "ERL_EPMD_ADDRESS": _HOST,
        }
        self._script = script
        self._mapper = self._spawn("epmd", "-port", str(mapper_port), "-address", _HOST)
        self.start()

    def start(self) -> None:
        """Start the node, as it is at first and after `kill`; return when it lets clients in.

        Never in a thread of its own: the node would end with that.
        """
        self._node = self._spawn(str(self._script))
        until = time.monotonic() + _START_SECONDS_MAX
        while not self._greets():
            if self._node.poll() is not None or time.monotonic() > until:
                raise TimeoutError((self.home / "output").read_text(errors="replace"))
            time.sleep(_PAUSE_SECONDS)

    def kill(self) -> None:
        """End the node at once, as a crash does."""
        self._node.kill()
        self._node.wait()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Have the node answer nothing any more; a new one runs in its place afterwards."""
        try:
            self._node.send_signal(signal.SIGSTOP)
            self._await_stop()
            yield
        finally:
            self.kill()
            self.start()

    def close(self) -> None:
        """Stop the node and its port mapper, and remove its data."""
        self._node.send_signal(signal.SIGKILL)
        self._node.wait()
        self._mapper.terminate()
        self._mapper.wait()
        self._directory.cleanup()

    def _await_stop(self) -> None:
        """Wait until all threads have stopped: one on another core may do so a moment later."""
        tasks = Path(f"/proc/{self._node.pid}/task")
        until = time.monotonic() + _START_SECONDS_MAX
        while any(_state(path) != "T" for path in tasks.glob("*/stat")):
            if time.monotonic() > until:
                raise TimeoutError("the node does not stop")
            time.sleep(_PAUSE_SECONDS / 10)

    async def reset(self) -> None:
        """Delete the queues that outlive a test, and undeclare nothing else."""
        async with asyncio.timeout(_START_SECONDS_MAX):
            for url in (self.url, self.other_url):
                await self._reset(url)

    async def _reset(self, url: str) -> None:
        connection = await aio_pika.connect(url)
        channel = await connection.channel()
        for name in ("authz_hangups", "jonny5_listener", "hotornot_listener"):
            await channel.queue_delete(name)
        # As on a cluster where Kazoo has been running.
        for name, kind in EXCHANGES.items():
            await channel.declare_exchange(name, kind)
        await channel.close()
        await connection.close()

    def _spawn(self, *command: str) -> subprocess.Popen[bytes]:
        with (self.home / "output").open("ab") as output:
            return subprocess.Popen(
                # Ends with this process, whatever ends it.
                ["setpriv", "--pdeathsig", "KILL", "--", *command],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env=self._environment, cwd=self.home, **self._owner,
            )  # fmt: skip

    def _greets(self) -> bool:
        """Whether the node answers a client with its first method."""
        try:
            with socket.create_connection((_HOST, self.port), timeout=1) as client:
                client.sendall(_GREETING)
                return client.recv(1) == _METHOD_FRAME
        except OSError:
            return False


def _state(path: Path) -> str:
    """Return the state of a thread by its /proc/PID/task/TID/stat; of one that has ended, T."""
    try:
        return path.read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "T"
