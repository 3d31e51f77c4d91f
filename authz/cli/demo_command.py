"""`authz demo`: a daemon with a store, two sub-accounts and a handful of calls to look at."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import click

from authz.cli.main import Invocation
from authz.cli.output import json_option, print_hint, print_json, print_table

if TYPE_CHECKING:
    from authz.config import Settings
    from authz.demo.daemon import DemoDaemon
    from authz.demo.story import Row

_NEXT = """
The daemon goes on running; try:

  curl -s {hook}/v1/authorize -d '{{"call_id":"c1","account":"acme-sales","to":"+442071838750"}}'
  curl -s {hook}/v1/reserve   -d '{{"call_id":"c1","account":"acme-sales","used_seconds":45}}'
  curl -s {hook}/v1/settle    -d '{{"call_id":"c1","account":"acme-sales","seconds":61}}'
  curl -s {admin}/v1/accounts/acme-sales/balance
  curl -s '{admin}/v1/price?account=acme-sales&to=%2B442071838750&seconds=61'
  AUTHZ_STATE_DIR={state} authz audit

Its log is {log}. Press Ctrl-C to stop it."""


@click.command("demo")
@click.option("--once", is_flag=True, help="Stop after the calls instead of staying up.")
@json_option
@click.pass_obj
def command(invocation: Invocation, once: bool, as_json: bool) -> None:
    """Show the daemon at work on a store of its own.

    Starts a daemon with an embedded store in the directory `demo` of the state directory, imports
    a deck of the world, creates a master with two sub-accounts, places calls through the hook API
    and shows what each was answered and charged. Whatever an earlier demonstration left there is
    removed first.

    \b
    Examples:
      authz demo
      authz demo --once --json
      AUTHZ_HOOK__LISTEN=127.0.0.1:9700 AUTHZ_ADMIN__LISTEN=127.0.0.1:9701 authz demo
    """
    try:
        asyncio.run(_run(invocation.settings, once=once, as_json=as_json))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _run(settings: Settings, *, once: bool, as_json: bool) -> None:
    from authz.demo.daemon import DemoDaemon

    # However the demonstration is told to end, its daemon and store end with it.
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    if task is not None:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
    if not as_json:
        click.echo("Starting a daemon with an embedded store ...")
    async with DemoDaemon(settings) as daemon:
        rows = await _place_calls(daemon, quiet=as_json)
        if as_json:
            print_json(rows)
        else:
            _show(rows)
        if once:
            return
        if not as_json:
            click.echo(
                _NEXT.format(
                    hook=daemon.hook_url,
                    admin=daemon.admin_url,
                    state=daemon.directory,
                    log=daemon.log_path,
                )
            )
        status = await daemon.ended()
        print_hint(f"The daemon has ended with status {status}.")


async def _place_calls(daemon: DemoDaemon, *, quiet: bool) -> list[Row]:
    import aiohttp

    from authz.demo.story import WAITS, Apis, prepare, tell

    async def announce(scene: str) -> None:
        if scene in WAITS and not quiet:
            click.echo(f"{WAITS[scene].capitalize()} (10 to 15 s) ...")

    async with aiohttp.ClientSession() as session:
        apis = Apis(session, daemon.hook_url, daemon.admin_url)
        await prepare(apis)
        return [row async for row in tell(apis, announce)]


def _show(rows: list[Row]) -> None:
    from authz.demo.story import ACCOUNTS

    print_table(
        ["scene", "account", "to", "answer", "charged (sub + master)", *ACCOUNTS],
        [(row.scene, row.account, row.to, row.answer, row.charged, *row.balances) for row in rows],
        right=ACCOUNTS,
        title="Calls, with the balances after each (USD)",
    )
