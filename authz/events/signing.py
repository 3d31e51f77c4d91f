"""Signatures of the Standard Webhooks specification (1.0): HMAC-SHA-256 over id, time and body."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from typing import Final

from authz.errors import InvalidInput

SECRET_PREFIX: Final = "whsec_"
#: What the specification recommends, in bytes.
_SECRET_BYTES: Final = 32
_SECRET_BYTES_MIN: Final = 24
_SECRET_BYTES_MAX: Final = 64
_SHOWN_CHARACTERS: Final = 4


def new_secret() -> str:
    """Return a new secret as receivers configure it."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def check_secret(secret: str, field: str) -> None:
    """Raise InvalidInput naming `field` unless it is `whsec_` and base64 of 24 to 64 bytes."""
    try:
        size = len(_key(secret))
    except (ValueError, binascii.Error):
        size = 0
    if not _SECRET_BYTES_MIN <= size <= _SECRET_BYTES_MAX:
        raise InvalidInput(
            field,
            f"is not {SECRET_PREFIX} and base64 of {_SECRET_BYTES_MIN} to "
            f"{_SECRET_BYTES_MAX} random bytes",
        )


def mask_secret(secret: str) -> str:
    """Return what tells a secret from another without giving it away."""
    return f"{SECRET_PREFIX}…{secret[-_SHOWN_CHARACTERS:]}"


def signature_header(message_id: str, sent_at: int, body: bytes, keys: Sequence[str]) -> str:
    """Return the value of `webhook-signature`: one signature for each secret in force."""
    content = b"%s.%d.%s" % (message_id.encode(), sent_at, body)
    return " ".join(
        "v1," + base64.b64encode(hmac.digest(_key(secret), content, hashlib.sha256)).decode()
        for secret in keys
    )


def _key(secret: str) -> bytes:
    if not secret.startswith(SECRET_PREFIX):
        raise ValueError("no whsec_ at the beginning")
    return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
