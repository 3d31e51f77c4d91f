"""How often an address may present a wrong token before it has to wait."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

#: Wrong tokens in a row that an address may present, and how soon it may present one more.
BURST: Final = 10
INTERVAL_SECONDS: Final = 6
#: Addresses that are remembered; past that the one that has been quiet for longest is forgotten.
ADDRESSES_MAX: Final = 10_000
#: Whoever has one IPv6 address usually has the whole network of this length.
_IPV6_PREFIX: Final = 64
_NANOS: Final = 1_000_000_000


class FailedAttempts:
    """A rate limit (GCRA) for each address. Of one process: an attacker gains little by several."""

    def __init__(self, monotonic_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._now = monotonic_ns
        #: Until when each address's allowance is used up, in nanoseconds of the clock.
        self._until: OrderedDict[str, int] = OrderedDict()

    def wait_seconds(self, address: str) -> int:
        """Return after how many seconds the address may try again; 0: it may now."""
        until = self._until.get(_network(address), 0)
        excess = until - self._now() - (BURST - 1) * INTERVAL_SECONDS * _NANOS
        return max(0, -(-excess // _NANOS))

    def note(self, address: str) -> None:
        """Count a wrong token from this address."""
        network = _network(address)
        until = max(self._until.get(network, 0), self._now())
        self._until[network] = until + INTERVAL_SECONDS * _NANOS
        self._until.move_to_end(network)
        if len(self._until) > ADDRESSES_MAX:
            self._until.popitem(last=False)


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, _IPV6_PREFIX), strict=False))
