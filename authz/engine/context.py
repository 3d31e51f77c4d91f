"""What every part of the engine works with, put together once per process."""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable
from functools import partial
from typing import Any

from authz.config import Settings
from authz.engine.briefings import closed_hours, make_briefing
from authz.engine.clock import StoreClock
from authz.engine.plans import REMEMBERED_CALLS_MAX, CallMemory
from authz.engine.quotes import Decks
from authz.engine.resend import ResendWindow
from authz.engine.terms import TermsBook
from authz.reasons import Outcome
from authz.store.accounts import AccountDirectory, Chain
from authz.store.client import StoreClient
from authz.store.scripts import load_scripts
from authz_ext.briefing import Briefing
from authz_ext.gate import CallGate
from authz_ext.numbers import NumberRules

#: How often a decision is made anew after a script has called what it was given stale.
ATTEMPTS_MAX = 4
_ATTEMPT_BITS = 52


class Context:
    """One process's view: store, accounts, decks, numbers, settings, memory of calls."""

    def __init__(
        self, client: StoreClient, decks: Decks, rules: NumberRules, settings: Settings
    ) -> None:
        self.client = client
        self.decks = decks
        self.rules = rules
        self.settings = settings
        self.directory = AccountDirectory(client, settings.calls.default_deck)
        self.clock = StoreClock()
        self.terms = TermsBook(decks, settings.calls)
        self.memory = CallMemory(REMEMBERED_CALLS_MAX)
        self.gate = CallGate()
        self.resend = ResendWindow()
        # Another server may know less than what this one has proved.
        client.on_run_id_change(lambda _previous, _present: self.gate.forget())
        client.on_run_id_change(lambda _previous, _present: self.directory.forget_all())
        client.on_run_id_change(self.resend.repeat)
        self.scripts = load_scripts()
        self.closed_hours = closed_hours(settings)
        #: Whether the store's memory is nearly used up, so that new paid calls must wait.
        self.memory_full = False
        #: Returns a number that no other authorize of any process will use.
        self.new_attempt = partial(random.Random(os.urandom(32)).getrandbits, _ATTEMPT_BITS)

    def briefing(self, chain: Chain, now: int) -> Briefing:
        """Return what the scripts are told alike of the chain's calls at store second `now`."""
        known = chain.briefing
        if known is None or not known.holds(now):
            known = chain.briefing = make_briefing(self.settings, chain, now)
        return known

    def run(
        self,
        name: str,
        chain: Chain,
        call_id: str,
        arguments: list[bytes],
        deadline_ms: int,
        hour_keys: tuple[bytes, ...] = (),
    ) -> Awaitable[list[Any]]:
        """Run one of the scripts about a call; await its answer."""
        prepared = chain.prepared(name, hour_keys)
        return self.client.call_prepared(prepared, call_id, arguments, deadline_ms)

    def is_stale(self, reply: list[Any], chain: Chain) -> bool:
        """Return whether the script knew better; then what it knew better is brought up to date."""
        outcome = reply[0]
        if outcome >= 0:
            return False
        if outcome == Outcome.STALE_TIME:
            self.clock.correct(reply[1])
            return True
        if outcome in (Outcome.STALE_CONFIG, Outcome.ACCOUNT_MISSING):
            self.directory.forget(chain.accounts[0].id)
            return True
        return False
