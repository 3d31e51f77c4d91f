"""Doubles of a FreeSWITCH: transcripts of a real one, their replay, a simulator cut from them."""

from __future__ import annotations
