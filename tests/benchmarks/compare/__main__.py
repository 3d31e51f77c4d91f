"""`python -m benchmarks.compare`: the ceiling, authz and its rivals, as ratios in one run."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from authz.store.client import StoreClient
from benchmarks.compare import postgres, setting, table
from benchmarks.compare.adapters import load_adapter
from benchmarks.compare.http_load import HttpService, LoadShape
from benchmarks.compare.subject import Sample, Subject
from loadtest.environment import look_around


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("--calls", type=int, default=4_000, help="calls of a subject in a round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds after the warm-up")
    parser.add_argument(
        "--shape", action="append", metavar="CONNECTIONSxPIPELINED", type=_shape,
        help="shape of the HTTP load; may be repeated (default: 50x1 and 8x8)",
    )  # fmt: skip
    parser.add_argument("--appendfsync", choices=("everysec", "always"), default="everysec")
    parser.add_argument("--without-sql", action="store_true", help="leave PostgreSQL out")
    parser.add_argument("--url", help="another HTTP charging server: http://HOST:PORT")
    parser.add_argument(
        "--adapter", default="benchmarks.compare.adapters:HttpAdapter",
        help="module:Class that speaks to it; see benchmarks/compare/adapters.py",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def _shape(text: str) -> LoadShape:
    connections, _, pipelined = text.partition("x")
    return LoadShape(int(connections), int(pipelined or 1))


def _other_server(options: argparse.Namespace, ground: setting.Ground) -> list[HttpService]:
    address = urlsplit(options.url)
    if address.scheme != "http" or address.hostname is None or address.port is None:
        raise SystemExit(f"{options.url}: write http://HOST:PORT")
    adapter = load_adapter(options.adapter)
    return [
        HttpService(options.url, (address.hostname, address.port), adapter, ground.accounts, shape)
        for shape in options.shape
    ]


async def _compare(options: argparse.Namespace) -> dict[str, Any]:
    """Measure; the event loop only frames the runs, which block it."""
    notes: list[str] = []
    async with setting.prepared_ground(options.appendfsync) as ground:
        client = await StoreClient.connect(ground.store_url)
        environment = await look_around(client)
        await client.close()
        with contextlib.ExitStack() as stack:
            subjects: list[Subject] = setting.subjects_on(ground, options.shape, stack)
            if options.url:
                for other in _other_server(options, ground):
                    subjects.append(stack.enter_context(contextlib.closing(other)))
            missing = "not asked for" if options.without_sql else postgres.obstacle()
            if missing:
                notes.append(f"left out: PostgreSQL ({missing})")
            # Its clients have an event loop of their own, which only another thread may run.
            samples = await asyncio.to_thread(_measure, options, ground, subjects, missing)
    return {
        "environment": {name: getattr(environment, name) for name in environment.__struct_fields__},
        "calls": options.calls,
        "rounds": options.rounds,
        "notes": notes,
        "rows": table.rows(samples),
    }


def _measure(
    options: argparse.Namespace,
    ground: setting.Ground,
    subjects: list[Subject],
    missing: str | None,
) -> dict[str, list[Sample]]:
    with contextlib.ExitStack() as own:
        ledgers = [] if missing else setting.sql_ledgers(ground, own)
        return table.measure([*subjects, *ledgers], options.rounds, options.calls, _tell)


def _tell(line: str) -> None:
    sys.stderr.write(line + os.linesep)


def _text(result: dict[str, Any]) -> str:
    about = ", ".join(f"{name} {value}" for name, value in result["environment"].items())
    return "\n".join(
        [
            about,
            f"medians of {result['rounds']} paired rounds of {result['calls']:,} calls",
            table.text(result["rows"]),
            *result["notes"],
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, measure, print."""
    options = _parser().parse_args(arguments)
    options.shape = options.shape or [LoadShape(50, 1), LoadShape(8, 8)]
    result = asyncio.run(_compare(options))
    text = json.dumps(result, indent=2, ensure_ascii=False) if options.json else _text(result)
    sys.stdout.write(text + os.linesep)
    return 0


if __name__ == "__main__":
    sys.exit(main())
