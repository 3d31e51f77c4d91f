"""The errors of authz, one small tree. A denied call is never an error but a value."""

from __future__ import annotations


class AuthzError(Exception):
    """Base of every error that authz raises on purpose."""


class ConfigError(AuthzError):
    """A setting is wrong; the text names the setting and what to write instead."""


class InvalidInput(AuthzError):
    """A caller's input is wrong. `field` is its path as the caller wrote it."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(f"{field}: {detail}" if field else detail)
        self.field = field
        self.detail = detail


class DeckError(AuthzError):
    """A deck cannot be imported, compiled or read."""


class ProtocolError(AuthzError):
    """A peer spoke something that its protocol does not allow."""


class InvariantError(AuthzError):
    """A rule that authz itself guarantees does not hold: a defect, never a caller's fault."""


class StoreError(AuthzError):
    """The store did not do what it was asked."""


class NotExecuted(StoreError):
    """The command certainly changed nothing: never sent, or refused as not executed.

    `code` is the first word of the store's refusal (`LOADING`, `OOM`, …), "" if it was never sent.
    """

    def __init__(self, message: str = "", code: str = "") -> None:
        super().__init__(message)
        self.code = code


class OutcomeUnknown(StoreError):
    """The command was sent and its answer never came: it may or may not have been executed."""


class StoreReplyError(StoreError):
    """The store answered with an error that a retry will not mend. `code` is its first word."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class AccountsChanged(AuthzError):
    """The chain by which an adapter has judged a call is no longer the one in force."""


class CallUnknown(AuthzError):
    """No record of this call of this account exists (any more)."""


class CallTooOld(CallUnknown):
    """The call ended so far from now that only the archive can tell whether it is booked."""


class SettledDifferently(AuthzError):
    """The call is already settled, with other seconds. `seconds` is what was booked."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"the call is already settled with {seconds} seconds")
        self.seconds = seconds


class SpoolFull(AuthzError):
    """The settle could be written neither to the store nor to the local spool."""


class Conflict(AuthzError):
    """The change contradicts what exists (an account with open calls, a reused reference)."""


class NotFound(AuthzError):
    """The named thing does not exist."""


class ArchiveUnavailable(AuthzError):
    """The archive cannot be asked now; nothing is lost by that, and it may be tried again."""


class ArchiveRefused(ArchiveUnavailable):
    """The archive's database refuses what it was to store."""


class ArchiveElsewhere(ArchiveUnavailable):
    """The store's archive is another one than this process can open."""


class HistoryTooLong(AuthzError):
    """A question about history looks through more than one answer may take."""

    def __init__(self) -> None:
        super().__init__("too much was booked to look through: ask for a shorter time")
