"""Metrics for Prometheus: what the processes count, and what the office reads at a scrape."""

from __future__ import annotations
