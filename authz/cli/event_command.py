"""`authz event`: alerts and recharge requests, as they were and as they come."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from authz.admin.services import Services
from authz.cli.event_service import checked, event_service
from authz.cli.main import Invocation
from authz.cli.output import json_option, print_hint, print_json, print_table
from authz.cli.session import run
from authz.event_types import EVENT_TYPES
from authz.events.messages import EventPage, EventQuery, EventView

if TYPE_CHECKING:
    from authz.events.service import EventService

_POLL_SECONDS: Final = 1
_TAIL_PAGE: Final = 500
#: Events of several buckets are archived in turn: one may come after a later one.
_OVERLAP_SECONDS: Final = 60


@click.group("event")
def command() -> None:
    """Look at events: alerts of accounts and requests to recharge them.

    \b
    Examples:
      authz event list --account acme
      authz event list --event 'recharge.*' --start 2026-11-01
      authz event tail --event balance.exhausted
      authz event types
    """


@command.command("list")
@click.option("--account", metavar="ID", help="Only of this account.")
@click.option("--event", metavar="NAME", help="Only of this name, or such as 'balance.*'.")
@click.option("--start", metavar="TIME", help="First day (UTC), as 2026-11-01, or moment.")
@click.option("--end", metavar="TIME", help="Last day, or the moment before which it ends.")
@click.option("--limit", type=int, metavar="COUNT", help="Most events (default 100).")
@click.option("--cursor", metavar="TEXT", help="Goes on after an earlier page.")
@json_option
@click.pass_obj
def list_events(invocation: Invocation, /, as_json: bool, **words: Any) -> None:
    """List what happened, the newest first.

    \b
    Examples:
      authz event list --account acme --start 2026-11-01 --end 2026-11-30
      authz event list --event call.denied --json
    """
    query = checked(words, EventQuery)

    async def work(services: Services) -> EventPage:
        return await (await event_service(services)).events(query)

    page = run(invocation, work)
    if as_json:
        print_json(page)
        return
    print_table(
        ("at", "account", "event", "facts", "id"),
        [(one.at, one.account, one.event, _facts(one), one.id) for one in page.events],
    )
    if page.cursor is not None:
        print_hint(f"There are more: --cursor {page.cursor}")


@command.command("tail")
@click.option("--account", metavar="ID", help="Only of this account.")
@click.option("--event", metavar="NAME", help="Only of this name, or such as 'balance.*'.")
@click.option("--seconds", type=click.IntRange(1), help="End after so long (default: never).")
@json_option
@click.pass_obj
def tail(invocation: Invocation, /, as_json: bool, seconds: int | None, **words: Any) -> None:
    """Print events as they come, one a line, until interrupted.

    \b
    Examples:
      authz event tail
      authz event tail --account acme --json
    """
    query = checked({**words, "sort": "at", "limit": _TAIL_PAGE}, EventQuery)

    async def work(services: Services) -> None:
        service = await event_service(services)
        began_at = now = await _store_seconds(services)
        seen: dict[str, int] = {}
        for _ in range(seconds) if seconds else itertools.count():
            start = str(max(began_at, now - _OVERLAP_SECONDS))
            for one in await _events_since(service, query, start):
                if one.id not in seen:
                    _print_line(one, as_json=as_json)
                    seen[one.id] = now
            now = await _store_seconds(services)
            # What is out of reach of the next question need not be remembered.
            seen = {name: at for name, at in seen.items() if at > now - 2 * _OVERLAP_SECONDS}
            await asyncio.sleep(_POLL_SECONDS)

    run(invocation, work)


@command.command("types")
@json_option
def types(as_json: bool) -> None:
    """List all events there are, with their meaning.

    \b
    Example:
      authz event types
    """
    rows = list(EVENT_TYPES.values())
    if as_json:
        print_json(
            [{"event": one.name, "meaning": one.meaning, "facts": one.facts} for one in rows]
        )
        return
    print_table(
        ("event", "facts", "meaning"),
        [(one.name, " ".join(one.facts), one.meaning) for one in rows],
    )


async def _store_seconds(services: Services) -> int:
    return int((await services.context.client.execute("TIME"))[0])


async def _events_since(service: EventService, query: EventQuery, start: str) -> list[EventView]:
    found: list[EventView] = []
    cursor: str | None = None
    while True:
        page = await service.events(msgspec.structs.replace(query, start=start, cursor=cursor))
        found += page.events
        cursor = page.cursor
        if cursor is None:
            return found


def _print_line(one: EventView, *, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(one))
    else:
        click.echo(f"{one.at}  {one.account}  {one.event}  {_facts(one)}")


def _facts(one: EventView) -> str:
    return " ".join(f"{name}={value}" for name, value in one.data.items())
