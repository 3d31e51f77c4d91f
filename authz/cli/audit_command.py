"""`authz audit`: does every invariant hold?"""

from __future__ import annotations

import click

from authz.admin.services import Services
from authz.cli.main import EXIT_FAILURE, Invocation
from authz.cli.output import json_option, print_hint, print_json, print_table
from authz.cli.progress import progress_bar
from authz.cli.session import run
from authz.engine.audit import AuditReport, audit
from authz.store import keys


@click.command("audit")
@click.option(
    "--bucket",
    "buckets",
    type=click.IntRange(0, keys.BUCKETS - 1),
    multiple=True,
    help="Only this bucket; may be repeated.",
)
@json_option
@click.pass_obj
def command(invocation: Invocation, buckets: tuple[int, ...], as_json: bool) -> int:
    """Check that balances, holds, counters and ledger agree, on a live store.

    It reads in small pages, writes nothing, and reads again what moves meanwhile. Exit status 1
    when something is wrong.

    \b
    Examples:
      authz audit
      authz audit --bucket 17
      authz audit --json > audit.json
    """

    async def work(services: Services) -> AuditReport:
        context = services.context
        with progress_bar("buckets") as progress:
            return await audit(
                context.client,
                buckets or None,
                progress,
                tombstone_hours=context.closed_hours + 2,
                archive=services.archive,
            )

    report = run(invocation, work)
    if as_json:
        print_json(report)
    else:
        _print(report)
    return EXIT_FAILURE if report.findings else 0


def _print(report: AuditReport) -> None:
    if report.findings:
        print_table(
            ("bucket", "account", "invariant", "expected", "found"),
            [
                (one.bucket, one.account or None, one.invariant, one.expected, one.found)
                for one in report.findings
            ],
            right=("bucket", "expected", "found"),
        )
        click.echo()
    click.echo(
        f"{len(report.findings)} findings in {report.buckets} buckets: {report.accounts} accounts, "
        f"{report.calls} open calls, {report.entries} ledger entries"
    )
    if report.moving:
        print_hint(
            f"{len(report.moving)} accounts never stood still, so that their holds were not "
            f"compared: {', '.join(report.moving[:10])}"
        )
    if report.findings:
        print_hint("Amounts are micros (1e-6). Keep the store as it is and report this.")
