"""The ceiling: authz's own scripts, plainly pipelined at the server, without any service."""

from __future__ import annotations

from collections.abc import Sequence

from authz.store.replies import read_answer
from benchmarks.compare.subject import Sample, sample
from benchmarks.pipeline import DEPTH, Pipeline
from benchmarks.recording import CALL_ID, CallTemplates


class Ceiling:
    """Drives prepared script calls at the store at `url`."""

    name = f"ceiling: own scripts, {DEPTH} in flight"

    def __init__(self, url: str, store_pids: Sequence[int], templates: Sequence[CallTemplates]):
        self._store = Pipeline(url)
        self._store_pids = store_pids
        self._templates = templates

    def run(self, first: int, calls: int) -> Sample:
        """Lead these calls through authorize and settle; each batch of them side by side."""
        commands: list[bytes] = []
        for start in range(first, first + calls, DEPTH):
            batch = range(start, min(start + DEPTH, first + calls))
            for kind in ("authorize", "settle"):
                for number in batch:
                    template = self._templates[number % len(self._templates)]
                    commands += template.commands(kind, [CALL_ID.format(number)])
        return sample(len(commands), lambda: self._check(commands), store_pids=self._store_pids)

    def close(self) -> None:
        """Disconnect."""
        self._store.close()

    def _check(self, commands: Sequence[bytes]) -> None:
        answers = map(read_answer, self._store.run(commands))
        refused = [answer for answer in answers if answer[0] != 0]
        if refused:
            raise RuntimeError(f"{len(refused)} of {len(commands)} were refused: {refused[0]}")
