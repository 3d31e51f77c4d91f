"""`authz changes`: who changed what, over the API or by a command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from authz.admin.services import Services
from authz.cli.event_service import checked
from authz.cli.lazy_archive import LazyArchive
from authz.cli.main import Invocation
from authz.cli.output import json_option, print_hint, print_json, print_table
from authz.cli.session import run
from authz.errors import InvariantError

if TYPE_CHECKING:
    from authz.ledger.changes import ChangePage


@click.command("changes")
@click.option("--start", metavar="TIME", help="First day (UTC), as 2026-11-01, or moment.")
@click.option("--end", metavar="TIME", help="Last day, or the moment before which it ends.")
@click.option("--who", metavar="NAME", help="Only by this token, or cli:USER.")
@click.option("--action", metavar="TEXT", help="Only this route or command, as it is listed.")
@click.option("--target", metavar="ID", help="Only of what has this id.")
@click.option("--limit", type=int, metavar="COUNT", help="Most changes to print (default 100).")
@click.option("--cursor", metavar="TEXT", help="Goes on after an earlier page.")
@json_option
@click.pass_obj
def command(invocation: Invocation, /, as_json: bool, **words: Any) -> None:
    """List changes, done and refused, the newest first.

    \b
    Examples:
      authz changes --target acme-sales
      authz changes --who cli:root --start 2026-11-01 --end 2026-11-30
      authz changes --action "authz token create" --json
    """

    async def work(services: Services) -> ChangePage:
        # Its database's library takes longer to import than most commands to run.
        from authz.ledger.changes import ChangeHistory, ChangeQuery

        query = checked(words, ChangeQuery)
        if not isinstance(services.archive, LazyArchive):
            raise InvariantError("the session of a command opens its archive when it is asked")
        return await ChangeHistory(await services.archive.opened()).page(query)

    page = run(invocation, work)
    if as_json:
        print_json(page)
        return
    print_table(
        ("at", "who", "remote", "action", "target", "status", "detail"),
        [
            (
                one.at,
                one.who or None,
                one.remote,
                one.action,
                one.target or None,
                one.status,
                msgspec.json.encode(one.detail).decode(),
            )
            for one in page.changes
        ],
        right=("status",),
    )
    if page.cursor is not None:
        print_hint(f"There are more: --cursor {page.cursor}")
