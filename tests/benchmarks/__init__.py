"""What authz costs, measured: see docs/benchmarks.md for the commands and the figures."""

from __future__ import annotations
