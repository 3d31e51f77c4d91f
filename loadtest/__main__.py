"""`python -m loadtest`: put load on a daemon and measure it."""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

import click

from authz import log
from authz.cli.output import print_error
from authz.errors import AuthzError
from loadtest import report, results, scenario, session, table
from loadtest.daemon import Daemon, parse_target
from loadtest.errors import LoadTestError
from loadtest.live import LiveLine
from loadtest.results import Options

_EXIT_FAILURE: Final = 1
_EXIT_INTERRUPTED: Final = 130


def _list_scenarios(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    for name in scenario.shipped():
        one = scenario.load(name)
        click.echo(f"{name:<18} {one.title}")
    context.exit()


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("scenario_name", metavar="[SCENARIO]", default="steady")
@click.option("--rate", type=click.FloatRange(1, 200_000), help="Requests per second.")
@click.option("--seconds", type=click.FloatRange(1, 600), help="Duration of the measurement.")
@click.option(
    "--runs",
    type=click.IntRange(1, 20),
    default=1,
    show_default=True,
    help="Repeat the load so often and tell the median of each figure.",
)
@click.option(
    "--generators",
    type=click.IntRange(1, 64),
    default=2,
    show_default=True,
    help="Processes that place calls.",
)
@click.option("--workers", type=click.IntRange(1, 128), help="Hook workers of the own daemon.")
@click.option(
    "--appendfsync",
    type=click.Choice(["everysec", "always"]),
    help="Durability of the own daemon's store.",
)
@click.option("--unix", "over_unix", is_flag=True, help="Use the hook API's Unix socket, not TCP.")
@click.option(
    "--target",
    metavar="URL",
    help="Hook API of a running daemon (http://HOST:PORT or unix:///PATH), which is not stopped. "
    "Its store gets accounts named load-... with money.",
)
@click.option("--store", metavar="URL", help="The store of that daemon; needed with --target.")
@click.option(
    "--state-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="That daemon's state directory: the audit asks the archive in it for what the ledgers no "
    "longer hold.",
)
@click.option(
    "--archive-url", metavar="URL", help="The same, where that daemon's archive is in PostgreSQL."
)
@click.option("--allow-remote", is_flag=True, help="Let --target be another host.")
@click.option("--no-floor", is_flag=True, help="Do not measure the generators' own floor.")
@click.option(
    "--stalls",
    is_flag=True,
    help="Find out what the machine did while the slowest requests waited (own daemon only; the "
    "watcher takes some hundredths of a core).",
)
@click.option("--seed", help="Repeat the calls of a run that was told this seed.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory for result.json and report.html  [default: build/loadtest/SCENARIO-TIME]",
)
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_scenarios,
    help="List the scenarios.",
)
def main(scenario_name: str, output: Path | None, **options: Any) -> None:
    """Place calls on a schedule, measure every answer, and audit the books afterwards.

    SCENARIO is the name of a shipped one (--list) or a TOML file. Without --target a daemon with
    a store of its own is started, and removed at the end. Only this host is loaded, for a bounded
    time. Exit status 1 when an invariant is broken or requests failed.

    \b
    Examples:
      python -m loadtest
      python -m loadtest hot-account --rate 5000 --runs 5
      python -m loadtest overload --workers 2
      python -m loadtest steady --rate 10000 --stalls
    """
    log.configure(level="error", format="auto", mask_numbers=True, process="loadtest")
    try:
        chosen = scenario.load(scenario_name).with_rate(options["rate"], options["seconds"])
        with LiveLine() as live:
            result = asyncio.run(_run(chosen, _options(options), live))
    except AuthzError as error:
        print_error(str(error))
        sys.exit(_EXIT_FAILURE)
    except (KeyboardInterrupt, asyncio.CancelledError):
        print_error("interrupted")
        sys.exit(_EXIT_INTERRUPTED)
    table.show(result)
    directory = output or Path(
        "build", "loadtest", f"{chosen.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    )
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "result.json").write_bytes(results.as_json(result))
    (directory / "report.html").write_text(report.render(result))
    click.echo(f"written: {directory / 'result.json'}, {directory / 'report.html'}")
    sys.exit(0 if result.is_clean else _EXIT_FAILURE)


async def _run(chosen: scenario.Scenario, options: Options, live: LiveLine) -> results.Result:
    """Run; when told to end, stop what was started first."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await session.run(chosen, options, live)


def _options(options: dict[str, Any]) -> Options:
    """Check what belongs together; raises LoadTestError."""
    daemon = None
    settings: dict[str, str | int | bool] = {}
    if options["workers"] is not None:
        settings["hook.workers"] = options["workers"]
    if options["appendfsync"] is not None:
        settings["store.appendfsync"] = options["appendfsync"]
    if options["target"] is not None:
        if options["store"] is None:
            raise LoadTestError(
                "--target also needs --store, the URL of that daemon's store: accounts are "
                "prepared there, and its books audited"
            )
        if settings or options["over_unix"] or options["stalls"]:
            raise LoadTestError(
                "--workers, --appendfsync, --unix and --stalls are for an own daemon"
            )
        target = parse_target(options["target"], allow_remote=options["allow_remote"])
        daemon = Daemon(
            target,
            options["store"],
            state_dir=options["state_dir"],
            archive_url=options["archive_url"],
        )
    for name in ("store", "state_dir", "archive_url"):
        if daemon is None and options[name] is not None:
            option = "--" + name.replace("_", "-")
            raise LoadTestError(f"{option} is for --target; an own daemon has its own")
    return Options(
        generators=options["generators"],
        runs=options["runs"],
        daemon=daemon,
        over_unix=options["over_unix"],
        measures_floor=not options["no_floor"],
        watches_stalls=options["stalls"],
        seed=options["seed"] or secrets.token_hex(4),
        settings=settings,
    )


if __name__ == "__main__":
    main()
