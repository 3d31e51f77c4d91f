"""What can go wrong between us and a FreeSWITCH, each with what is known of the command.

What a caller must tell apart is whether the switch may have acted: `CommandNotSent` says that it
certainly did not, `OutcomeUnknown` that it may have, `CommandFailed` that it refused.
"""

from __future__ import annotations

from typing import Final

from authz.errors import AuthzError

#: How FreeSWITCH says that a channel is gone, to an api command and to a sendmsg.
_GONE: Final = ("-ERR No such channel", "-ERR invalid session id")


class SwitchError(AuthzError):
    """A switch could not be reached, refused us or did not do what it was asked."""


class SwitchUnreachable(SwitchError):
    """No connection: nothing listens, the network fails, or the greeting does not come in time."""


class SwitchRefused(SwitchError):
    """The switch does not want us: a wrong password, or an address that its list does not allow."""


class CommandNotSent(SwitchError):
    """The command certainly had no effect: it never left this process."""


class OutcomeUnknown(SwitchError):
    """The command was sent and its answer never came: the switch may have acted on it."""


class CommandFailed(SwitchError):
    """The switch refused the command. `reply` is its answer, which begins with -ERR or -USAGE."""

    def __init__(self, command: str, reply: str) -> None:
        super().__init__(f"{command}: {reply}")
        self.reply = reply

    @property
    def is_gone(self) -> bool:
        """Whether the refusal says that the channel does not exist (any more)."""
        return self.reply.startswith(_GONE)
