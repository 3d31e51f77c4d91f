"""An office that does nothing but archive, to be killed at any moment.

usage: archive_process.py STORE_URL ARCHIVE_URL DIRECTORY
It stores a few entries a transaction, so that a kill falls between and into many of them.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from archives import archive_settings

from authz.ledger import drain
from authz.ledger.archive import Archive
from authz.store.client import StoreClient

drain.PAGE = 3  # type: ignore[misc]


async def main(store_url: str, archive_url: str, directory: str) -> None:
    """Archive until killed."""
    client = await StoreClient.connect(store_url)
    archive = Archive(client, archive_settings(Path(directory), archive_url))
    archive.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
