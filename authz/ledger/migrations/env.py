"""Alembic's entry: runs the scripts on the connection that it is given, in its transaction."""

from __future__ import annotations

from alembic import context

from authz.ledger.schema import metadata

# Only while Alembic runs it: any other import of this module does nothing.
config = getattr(context, "config", None)
if config is not None:
    context.configure(
        connection=config.attributes["connection"],
        target_metadata=metadata,
        # SQLite changes few things of a table in place.
        render_as_batch=True,
    )
    context.run_migrations()
