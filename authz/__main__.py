"""`python -m authz` is the command `authz`."""

from __future__ import annotations

from authz.cli.main import main

main()
