"""What an operator of Kazoo brings along: limits documents and rates, read into authz's words."""

from __future__ import annotations
