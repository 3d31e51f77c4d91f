"""How the archive's tables came to be what they are: Alembic's scripts, run when it is opened."""

from __future__ import annotations
