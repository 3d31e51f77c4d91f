"""Old files of the embedded store's log, removed piece by piece.

After each rewrite of its log the store removes the files before it, some hundred megabytes, and at
the same moment syncs a small file in the thread that serves every call. Where removing blocks takes
the disk's time (a file system mounted with `discard`, or a journal), that sync waited for it: a
tenth of a second, again and again (`python -m benchmarks.log_rewrite`). So each file of the log has
a second name here, a hard link, by which it outlives its removal by the store, and is then cut
shorter a piece at a time.

The links cost no space. Without them (another file system, a killed daemon) nothing is lost: the
store removes its files as it always did, and what was left here goes after the next start.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Final

#: Under the directory of the embedded store's data.
_LOG_DIRECTORY: Final = "appendonlydir"
_MANIFEST: Final = "appendonly.aof.manifest"
_KINDS: Final = ("appendonly.aof.*.base.*", "appendonly.aof.*.incr.*")
#: Removed at a time: some milliseconds of a slow disk.
PIECE_BYTES: Final = 8 * 1024 * 1024
_NAMES_MIN: Final = 2


class RetiredLogs:
    """The second names of the log's files in `store_dir`, for its owner alone. Blocking.

    Its methods raise OSError where the file system refuses, and may be called again then.
    """

    def __init__(self, store_dir: Path) -> None:
        self._log = store_dir / _LOG_DIRECTORY
        self._retired = store_dir / "retired"

    def hold(self) -> None:
        """Give every file that the log consists of now a second name."""
        held = {_identity(path) for path in self._held()}
        for kind in _KINDS:
            for path in self._log.glob(kind):
                with contextlib.suppress(FileNotFoundError, FileExistsError):
                    if _identity(path) not in held:
                        self._link(path)

    def release_piece(self) -> bool:
        """Remove a piece of what the store has removed; return whether there is more of it."""
        for path in self._abandoned():
            size = path.stat().st_size
            if size > PIECE_BYTES:
                os.truncate(path, size - PIECE_BYTES)
                return True
            path.unlink()
        return False

    def clear(self) -> None:
        """Remove all second names of what the log has or no longer needs: the store has ended."""
        for path in self._abandoned():
            path.unlink(missing_ok=True)
        for path in self._held():
            if path.stat().st_nlink > 1:
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._retired.rmdir()

    def _link(self, path: Path) -> None:
        self._retired.mkdir(mode=0o700, exist_ok=True)
        # Of two files of one name the older one may not be gone yet.
        second = self._retired.joinpath(f"{path.name}-{path.stat().st_ino}")
        os.link(path, second)
        if path.stat().st_nlink < _NAMES_MIN:
            second.unlink()
            raise OSError(errno.ENOTSUP, "this file system does not count a file's names")

    def _held(self) -> list[Path]:
        return sorted(self._retired.glob("appendonly.aof.*"))

    def _abandoned(self) -> list[Path]:
        """Return the files that have no other name and that the log does not speak of.

        One that it does speak of was removed by somebody else, by mistake: it stays.
        """
        alone = [path for path in self._held() if path.stat().st_nlink == 1]
        if not alone:
            return []
        wanted = self._log.joinpath(_MANIFEST).read_text(errors="replace").split()
        return [path for path in alone if self._is_superseded(path, wanted)]

    def _is_superseded(self, path: Path, wanted: list[str]) -> bool:
        name = path.name.rpartition("-")[0]
        if name not in wanted:
            return True
        # A copy of the state directory has copies of its files here.
        live = self._log.joinpath(name)
        return live.exists() and _identity(live) != _identity(path)


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
