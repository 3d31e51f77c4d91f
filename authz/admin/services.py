"""Everything that operators may do, put together once per process: the API and the CLI use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from authz.admin.changes import ChangeLog
from authz.admin.decks import DeckService
from authz.admin.tokens import TokenService
from authz.archived import LedgerArchive
from authz.engine.accounts import AccountService
from authz.engine.context import Context
from authz.engine.postings import PostingService
from authz.engine.recharges import RechargeService
from authz.errors import ArchiveUnavailable
from authz.events.endpoints import WebhookDirectory

if TYPE_CHECKING:
    from authz.events.service import EventService
    from authz.ledger.changes import ChangeHistory
    from authz.ledger.history import History


class Services:
    """The services over one engine context; `history` and `events` only with an archive."""

    def __init__(
        self,
        context: Context,
        history: History | None = None,
        events: EventService | None = None,
        *,
        archive: LedgerArchive | None = None,
        change_history: ChangeHistory | None = None,
    ) -> None:
        client, directory, clock = context.client, context.directory, context.clock
        self.context = context
        self.archive = archive
        self.accounts = AccountService(client, directory, clock)
        self.postings = PostingService(
            client,
            directory,
            clock,
            closed_hours=context.closed_hours,
            resend=context.resend,
            archive=archive,
        )
        self.decks = DeckService(client, context.settings.decks)
        self.tokens = TokenService(client, directory, clock)
        self.changes = ChangeLog(client, clock)
        self.recharges = RechargeService(client, directory, clock, self.postings)
        self.webhooks = WebhookDirectory(client, context.settings.webhooks)
        self._history = history
        self._events = events
        self._change_history = change_history

    @property
    def history(self) -> History:
        """What was booked; raises ArchiveUnavailable where no archive is open."""
        if self._history is None:
            raise ArchiveUnavailable("no archive is open here")
        return self._history

    @property
    def events(self) -> EventService:
        """What happened and who was told; raises ArchiveUnavailable where no archive is open."""
        if self._events is None:
            raise ArchiveUnavailable("no archive is open here")
        return self._events

    @property
    def change_history(self) -> ChangeHistory:
        """Who changed what; raises ArchiveUnavailable where no archive is open."""
        if self._change_history is None:
            raise ArchiveUnavailable("no archive is open here")
        return self._change_history
