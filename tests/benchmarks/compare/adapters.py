"""How an HTTP charging server is asked; one small class for each kind of server.

To compare another server, write a subclass of `HttpAdapter` in a module on PYTHONPATH and run
`python -m benchmarks.compare --url http://127.0.0.1:2080 --adapter my_module:MyAdapter`. The
server needs the accounts `compare-sub-0` to `compare-sub-19` with credit before.
"""

from __future__ import annotations

import importlib
import json
from typing import Any

from world import US

from benchmarks.recording import SETTLED_SECONDS


class HttpAdapter:
    """Requests and answers of authz's hook API, and the base of other servers' adapters."""

    def authorize(self, call_id: str, account: str) -> bytes:
        """Return the whole request that asks whether a call may start."""
        return self.post(
            "/v1/authorize",
            {"call_id": call_id, "account": account, "to": US, "from": "+13105550100"},
        )

    def settle(self, call_id: str, account: str) -> bytes:
        """Return the whole request that books the call."""
        return self.post(
            "/v1/settle",
            {
                "call_id": call_id,
                "account": account,
                "seconds": SETTLED_SECONDS,
                "hangup_cause": "NORMAL_CLEARING",
            },
        )

    def succeeded(self, kind: str, status: int, body: bytes) -> bool:
        """Return whether the answer to `authorize` or `settle` allows or books the call."""
        expected = b'"allowed":true' if kind == "authorize" else b'"settled":true'
        return status == 200 and expected in body

    @staticmethod
    def post(path: str, document: dict[str, Any]) -> bytes:
        """Return a POST of a JSON document."""
        body = json.dumps(document, separators=(",", ":")).encode()
        return (
            b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (path.encode(), len(body), body)
        )


def load_adapter(name: str) -> HttpAdapter:
    """Return an adapter named `module:Class`."""
    module_name, _, class_name = name.partition(":")
    adapter = getattr(importlib.import_module(module_name), class_name)()
    if not isinstance(adapter, HttpAdapter):
        raise TypeError(f"{name} is no HttpAdapter")
    return adapter
