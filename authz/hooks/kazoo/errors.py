"""What can go wrong between us and Kazoo's message broker."""

from __future__ import annotations

from authz.errors import AuthzError


class KazooError(AuthzError):
    """The broker, or a message of Kazoo's, is not as it should be."""


class BrokerUnreachable(KazooError):
    """There is no connection now: the message was certainly not taken, and may be sent later."""


class BrokerRefused(KazooError):
    """The broker does not want us: login, virtual host, or a queue that exists otherwise."""


class PublishUnknown(KazooError):
    """The message was sent and the broker's word on it never came: it may have been delivered."""


class MalformedMessage(KazooError):
    """What a queue delivered is no message that we know. The text names the field and its fault."""
