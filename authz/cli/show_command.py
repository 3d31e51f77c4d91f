"""`authz show`: any record of the store, decoded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from authz.admin.records import SHOWN_MAX, describe_key
from authz.admin.services import Services
from authz.cli.main import Invocation
from authz.cli.output import json_option, print_facts, print_hint, print_json
from authz.cli.session import run
from authz.errors import NotFound
from authz.store import keys


@click.command("show")
@click.argument("words", nargs=-1, required=True, metavar="KEY | account ID | call ACCOUNT CALL_ID")
@json_option
@click.pass_obj
def command(invocation: Invocation, words: tuple[str, ...], as_json: bool) -> None:
    """Print a record of the store as it is, with the name of its key.

    Amounts are micros (1e-6), times as the field's name says. Of streams the latest entries are
    shown, of sets and hashes some.

    \b
    Examples:
      authz show account acme-sales
      authz show call acme-sales c1
      authz show 'authz:{17}:ledger'
      authz show 'authz:{17}:leases' --json
    """
    if not (
        len(words) == 1
        or (words[0] == "account" and len(words) == 2)
        or (words[0] == "call" and len(words) == 3)
    ):
        raise click.UsageError("write KEY, account ID, or call ACCOUNT CALL_ID")

    async def work(services: Services) -> dict[str, Any]:
        return await describe_key(services.context.client, await _key(services, words))

    described = run(invocation, work)
    if as_json:
        print_json(described)
        return
    value = described.pop("value", None)
    print_facts({name.replace("_", " "): fact for name, fact in described.items()})
    click.echo()
    print_facts(dict(_flatten("", value)))
    counted = next((described[name] for name in _COUNTS if name in described), 0)
    if counted > SHOWN_MAX:
        print_hint(f"{SHOWN_MAX} of {counted} are shown.")


async def _key(services: Services, words: tuple[str, ...]) -> bytes:
    if len(words) == 1:
        return words[0].encode()
    account_id = words[1]
    tag = await services.context.directory.tag_of(account_id)
    if tag is None:
        raise NotFound(f"no account {account_id}")
    if words[0] == "account":
        return keys.account(tag, account_id)
    return keys.call(tag, account_id, words[2])


_COUNTS = ("fields", "members", "entries", "items")


def _flatten(prefix: str, value: object) -> Iterator[tuple[str, object]]:
    """Yield dotted names and plain values of a nested document."""
    pairs: Iterator[tuple[object, object]]
    if isinstance(value, Mapping):
        pairs = iter(value.items())
    elif isinstance(value, list | tuple):
        pairs = iter(enumerate(value))
    else:
        text = str(value).lower() if isinstance(value, bool) else value
        yield prefix or "value", text
        return
    for name, inner in pairs:
        yield from _flatten(f"{prefix}.{name}" if prefix else str(name), inner)
