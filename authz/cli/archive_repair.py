"""What `authz archive repair` shows of two sides that part, and what it does about them."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from authz.admin.services import Services
from authz.cli.output import print_hint, print_table
from authz.engine.rebook import LostEntry, rebook
from authz.errors import Conflict
from authz.ledger.archive import Archive
from authz.ledger.repair import Divergence, Verdict, accept, find_divergence
from authz.money import format_amount
from authz.store.constants import Kind, Mark

#: So many entries of each side are shown.
_SHOWN_MAX = 50


async def repair(
    services: Services, archive: Archive, bucket: int, verdict: Verdict | None
) -> Divergence:
    """Return where the two sides part, having brought them together if there is a verdict.

    Raises Conflict when something cannot be booked again; what was booked until then stays, and
    the same command goes on from there.
    """
    client = services.context.client
    found = await find_divergence(client, archive.database, bucket)
    if verdict is None or not found.is_parted:
        return found
    if verdict == "archive":
        for entry in await _entries(archive, found):
            try:
                await rebook(services.context, entry)
            except Conflict as error:
                raise Conflict(f"entry {entry.sequence} cannot be booked again: {error}") from error
        # What was booked is on the store's side now.
        found = await find_divergence(client, archive.database, bucket)
    await accept(archive.database, found, verdict)
    return found


async def _entries(archive: Archive, found: Divergence) -> list[LostEntry]:
    """Return what only the archive has; of a call only its final settlement, which says it all."""
    entries = []
    for first in found.only_archived():
        if first["kind"] == Kind.CALL and first["marks"] & Mark.PROVISIONAL:
            continue
        legs = [row for row in found.archived if row["sequence"] == first["sequence"]]
        entry = LostEntry(
            sequence=first["sequence"],
            kind=Kind(first["kind"]),
            reference=first["reference"],
            accounts=tuple(row["account"] for row in legs),
            amounts=tuple(row["amount_micros"] for row in legs),
            description=first["description"],
            refunded_call=first["refunded_call"],
            number=first["number"],
            seconds=first["seconds"],
            started_at=first["started_at"],
            call_class=first["class"],
            direction=first["direction"],
            billings=tuple(row["billing"] for row in legs),
        )
        if entry.kind == Kind.CALL:
            entry = await _with_costs(archive, found, entry)
        entries.append(entry)
    return entries


async def _with_costs(archive: Archive, found: Divergence, entry: LostEntry) -> LostEntry:
    """Return a call's entry with what was charged in all, and before the two sides parted."""
    call = await archive.call(entry.accounts[0], entry.reference)
    if call is None:
        raise Conflict(f"call {entry.reference} is not archived any more: look again")
    after = [0] * len(call.costs)
    count = 0
    for row in found.archived:
        if row["origin"] == entry.accounts[0] and row["reference"] == entry.reference:
            after[row["leg"]] -= row["amount_micros"]
            count += row["leg"] == 0
    before = tuple(cost - part for cost, part in zip(call.costs, after, strict=True))
    is_known = call.entries > count
    return msgspec.structs.replace(entry, costs=call.costs, charged=before if is_known else None)


def print_divergence(found: Divergence) -> None:
    """Show both sides."""
    click.echo(f"bucket {found.bucket}: store and archive agree up to entry {found.common}")
    if not found.is_parted:
        return
    if found.lost_entries:
        click.echo(f"{found.lost_entries} entries after it are neither in the store nor archived:")
        print_table(
            ("account", "movements", "amount", "balance"),
            [
                (
                    one.account,
                    one.movements,
                    format_amount(one.amount_micros),
                    format_amount(one.balance_micros),
                )
                for one in found.lost
            ],
            right=("movements", "amount", "balance"),
        )
    again = {row["sequence"] for row in found.only_archived()}
    sides: list[tuple[Any, ...]] = [
        (
            "archive" if row["sequence"] in again else "archive (booked anew)",
            *(row["sequence"], row["account"], Kind(row["kind"]).label, row["reference"]),
            format_amount(row["amount_micros"]),
        )
        for row in found.archived[:_SHOWN_MAX]
    ]
    sides += [
        (
            "store",
            entry.sequence,
            leg.account,
            entry.kind.label,
            entry.reference,
            format_amount(leg.amount),
        )
        for entry in found.stored[:_SHOWN_MAX]
        for leg in entry.legs
    ]
    print_table(
        ("only in", "entry", "account", "kind", "reference", "amount"),
        sides,
        right=("entry", "amount"),
    )
    hidden = max(0, len(found.archived) - _SHOWN_MAX) + max(0, len(found.stored) - _SHOWN_MAX)
    if hidden:
        print_hint(f"{hidden} more are not shown; --json has all that only the archive has.")
