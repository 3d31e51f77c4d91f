"""`authz serve`: the daemon in the foreground."""

from __future__ import annotations

import click

from authz.cli.main import Invocation


@click.command("serve")
@click.option(
    "--workers",
    type=click.IntRange(1, 128),
    help="Processes that answer switches (hook.workers).",
)
@click.option("--listen", metavar="HOST:PORT", help="Address of the hook API (hook.listen).")
@click.pass_obj
def command(invocation: Invocation, workers: int | None, listen: str | None) -> None:
    """Run the daemon until it is told to stop.

    It answers switches on 127.0.0.1:8700 and operators on 127.0.0.1:8701. Without a store.url
    it starts its own store in the state directory.

    \b
    Signals:
      TERM, INT  finish what is begun and stop; a second one stops at once
      HUP        read the settings again, replace the processes one by one

    \b
    Examples:
      authz serve
      authz serve --workers 4
      AUTHZ_STORE__URL=redis://10.0.0.5/0 authz serve
      AUTHZ_STATE_DIR=/tmp/authz authz serve --listen 127.0.0.1:9000
    """
    # The other commands need neither an event loop nor a supervisor.
    import uvloop

    from authz.server.crew import PROGRAMS
    from authz.server.stores import open_store
    from authz.server.supervisor import Supervisor

    options = {"hook.workers": ("--workers", workers), "hook.listen": ("--listen", listen)}
    supervisor = Supervisor(
        lambda: invocation.load(options).settings, programs=PROGRAMS, open_store=open_store
    )
    uvloop.run(supervisor.run())
