"""Fills a store with live calls, quickly: real records, copied, and accounts that agree with them.

One call is authorized by the engine in each bucket. Its record, lease and counters are then
written as often as asked, so that the store is what that many authorizes would have left, and an
audit of it is clean.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final

from authz.store import keys
from authz.store.connection import pack_command
from authz.store.layouts import ACCOUNT_STATE, CALL_HEAD
from authz.store.replies import read_answer
from benchmarks.pipeline import Pipeline
from benchmarks.recording import CallTemplates, record_chains

#: Ids of loaded calls, which no measured call uses.
_CALL_ID: Final = "live-{:09d}@switch-2.example.net"
_BATCH: Final = 100
#: Leases end at so many different milliseconds, as those of real calls do.
_LEASE_SPREAD_MS: Final = 3_600_000
_LEASE_OFFSET: Final = sum(
    struct.calcsize(">" + {"u8": "B", "i64": "q", "digest8": "8s", "i32": "i"}[code])
    for name, code in CALL_HEAD.fields[: CALL_HEAD.names.index("lease_ms")]
)
_LEASE: Final = struct.Struct(">q")


def bucket_chains(buckets: int) -> list[list[str]]:
    """Return one chain of two for each of that many buckets."""
    chains: dict[str, list[str]] = {}
    number = 0
    while len(chains) < buckets:
        root = f"live-master-{number}"
        chains.setdefault(keys.tag_of_root(root), [f"live-sub-{number}", root])
        number += 1
    return list(chains.values())


async def prepare_live_calls(url: str, buckets: int = keys.BUCKETS) -> list[CallTemplates]:
    """Create the accounts of that many buckets on the store at `url`."""
    return await record_chains(url, bucket_chains(buckets))


def fill_live_calls(store: Pipeline, templates: Sequence[CallTemplates], calls: int) -> None:
    """Write `calls` live calls, spread evenly over the prepared accounts."""
    for place, template in enumerate(templates):
        share = calls * (place + 1) // len(templates) - calls * place // len(templates)
        if share > 0:
            _fill(store, template, place * 1_000_000, share)


async def load_live_calls(url: str, calls: int) -> None:
    """Write `calls` live calls over all buckets into the store at `url`."""
    templates = await prepare_live_calls(url)
    with Pipeline(url) as store:
        fill_live_calls(store, templates, calls)


def _fill(store: Pipeline, template: CallTemplates, first: int, calls: int) -> None:
    """Write that many calls of one account."""
    before = _states(store, template)
    call_id = _CALL_ID.format(first)
    reply = read_answer(store.run(template.commands("authorize", [call_id]))[0])
    if reply[0] != 0:
        raise RuntimeError(f"the first live call was not allowed: {reply}")
    record = store.execute("GET", keys.call(template.tag, template.account, call_id))
    for batch in _batches(template, record, range(first + 1, first + calls)):
        store.run(batch)
    after = _states(store, template)
    for name, old, new in zip(template.names, before, after, strict=True):
        store.execute("HSET", keys.account(template.tag, name), "s", _repeated(old, new, calls - 1))


def _states(store: Pipeline, template: CallTemplates) -> list[Any]:
    return [
        ACCOUNT_STATE.unpack(store.execute("HGET", keys.account(template.tag, name), "s"))
        for name in template.names
    ]


def _repeated(old: Any, new: Any, times: int) -> bytes:
    """Return the state after what changed `old` to `new` has happened `times` more times."""
    values = new._asdict()
    for name in ("held", "used", "calls", *(one for one in values if one.startswith("calls_"))):
        values[name] += times * (values[name] - getattr(old, name))
    return ACCOUNT_STATE.pack(**values)


def _batches(template: CallTemplates, record: bytes, numbers: range) -> Iterator[list[bytes]]:
    lease_ms = CALL_HEAD.unpack(record).lease_ms
    start, end = record[:_LEASE_OFFSET], record[_LEASE_OFFSET + _LEASE.size :]
    leases_key = keys.leases(template.tag)
    for first in range(numbers.start, numbers.stop, _BATCH):
        records: list[bytes] = []
        leases: list[bytes | int] = []
        for number in range(first, min(first + _BATCH, numbers.stop)):
            call_id = _CALL_ID.format(number)
            # A prime step: neighbours in the keyspace are no neighbours in the leases.
            due_ms = lease_ms + number * 7_919 % _LEASE_SPREAD_MS
            records += (
                keys.call(template.tag, template.account, call_id),
                start + _LEASE.pack(due_ms) + end,
            )
            leases += (due_ms, keys.call_member(template.account, call_id))
        yield [pack_command(("MSET", *records)), pack_command(("ZADD", leases_key, *leases))]
