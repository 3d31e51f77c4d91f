"""The ceiling and the rivals in one run: `make bench-compare`; see docs/benchmarks.md."""

from __future__ import annotations
