"""What switches call: the HTTP hook API."""

from __future__ import annotations
