"""Names of everything in the store, and the choice of buckets. No other module spells a key.

All keys of one account tree carry its bucket's hash tag, so that every script touches one
cluster slot. The tags are the smallest numbers that spread the buckets evenly over the slots.
"""

from __future__ import annotations

import binascii
import hashlib
from functools import lru_cache

from authz_ext.briefing import digest_of_call

BUCKETS = 64
_SLOTS = 16_384
#: Hash with the bucket count and the identity of this store's data.
STORE_IDENTITY = b"authz:store"
#: Sorted set of all account ids, every score 0. It may name one too many (a crash), never one
#: too few: an account is entered before it is created.
ACCOUNTS = b"authz:accounts"


def slot_of(tag: str) -> int:
    """Return the cluster slot of a hash tag (CRC-16/XMODEM modulo 16,384)."""
    return binascii.crc_hqx(tag.encode(), 0) % _SLOTS


def _choose_tags() -> tuple[str, ...]:
    tags: dict[int, str] = {}
    number = 0
    while len(tags) < BUCKETS:
        tags.setdefault(slot_of(str(number)) * BUCKETS // _SLOTS, str(number))
        number += 1
    return tuple(tags[bucket] for bucket in range(BUCKETS))


#: The hash tag of each bucket, by the bucket's index.
TAGS = _choose_tags()


@lru_cache(maxsize=65_536)
def tag_of_root(root: str) -> str:
    """Return the hash tag under which the tree of this root account lives."""
    digest = hashlib.blake2b(root.encode(), digest_size=8).digest()
    return TAGS[int.from_bytes(digest, "big") % BUCKETS]


def root(account: str) -> bytes:
    """Key naming the root of an account; written before the account, never changed."""
    return f"authz:root:{account}".encode()


def account(tag: str, account_id: str) -> bytes:
    """Hash of an account: `s` its running state, `c` its configuration."""
    return f"authz:{{{tag}}}:account:{account_id}".encode()


def call(tag: str, account_id: str, call_id: str) -> bytes:
    """Packed record of an open or orphaned call."""
    return f"authz:{{{tag}}}:call:{account_id}:{call_id}".encode()


def call_member(account_id: str, call_id: str) -> bytes:
    """Name of a call in its bucket's leases; account ids hold no colon."""
    return f"{account_id}:{call_id}".encode()


def split_member(member: bytes) -> tuple[str, str]:
    """Return (account, call_id) of a member of the leases."""
    account_id, _, call_id = member.decode().partition(":")
    return account_id, call_id


def call_digest(account_id: str, call_id: str) -> bytes:
    """Return the 16 bytes under which a settled call's tombstone is kept."""
    return digest_of_call(call_member(account_id, call_id))


def leases(tag: str) -> bytes:
    """Sorted set of a bucket's open calls by the end of their lease, in store milliseconds."""
    return f"authz:{{{tag}}}:leases".encode()


def closed_prefix(tag: str) -> bytes:
    """Beginning of the hourly hashes of tombstones; a script appends the hour."""
    return f"authz:{{{tag}}}:closed:".encode()


def closed(tag: str, hour: int) -> bytes:
    """Hash of the tombstones of the calls settled in an hour (hours since 1970-01-01)."""
    return closed_prefix(tag) + b"%d" % hour


def closed_filter(tag: str, day: int) -> bytes:
    """Bits that tell which calls a day (days since 1970-01-01) has no tombstone of."""
    return closed_prefix(tag) + b"filter:%d" % day


def bucket(tag: str) -> bytes:
    """Hash of a bucket's counters: ledger sequence, versions, sweeper's stamps."""
    return f"authz:{{{tag}}}:bucket".encode()


def ledger(tag: str) -> bytes:
    """Stream of every movement of money in a bucket."""
    return f"authz:{{{tag}}}:ledger".encode()


def events(tag: str) -> bytes:
    """Stream of alerts and recharge requests of a bucket."""
    return f"authz:{{{tag}}}:events".encode()


def recharges(tag: str) -> bytes:
    """Hash of a bucket's requested recharges that wait for money, by `<account>-<number>`."""
    return f"authz:{{{tag}}}:recharges".encode()


def recharge_checks(tag: str) -> bytes:
    """Sorted set of accounts whose recharge is to be looked at, by the time in store seconds."""
    return f"authz:{{{tag}}}:recharge_checks".encode()


def denials(tag: str, account_id: str) -> bytes:
    """Hash of an account's denials that no event has told yet, by reason."""
    return f"authz:{{{tag}}}:denials:{account_id}".encode()


def reference(tag: str, account_id: str, text: str) -> bytes:
    """What a credit's or debit's reference already did."""
    return f"authz:{{{tag}}}:reference:{account_id}:{text}".encode()


def children(tag: str, account_id: str) -> bytes:
    """Sorted set of an account's direct children, every score 0; of "": a bucket's roots."""
    return f"authz:{{{tag}}}:children:{account_id}".encode()


def refunded(tag: str, account_id: str, call_id: str) -> bytes:
    """How much of a call's charge has been given back."""
    return f"authz:{{{tag}}}:refunded:{account_id}:{call_id}".encode()


def webhooks() -> bytes:
    """Where events are sent to: one JSON document with its version, replaced as a whole."""
    return b"authz:webhooks"


def decks() -> bytes:
    """Hash of the decks in force: a manifest for each, and a mark that changes with any."""
    return b"authz:decks"


def deck_chunk(deck_id: str, upload: str, number: int) -> bytes:
    """One chunk of a published deck."""
    return f"authz:deck:{deck_id}:{upload}:{number}".encode()


def deck_uploads(deck_id: str) -> bytes:
    """Hash of a deck's publications whose chunks are in the store."""
    return f"authz:deck:{deck_id}:uploads".encode()


def deck_history(deck_id: str) -> bytes:
    """List of the versions of a deck that were put in force."""
    return f"authz:deck:{deck_id}:history".encode()


def tokens() -> bytes:
    """Hash of the admin API's tokens: a JSON record with the secret's digest by token id."""
    return b"authz:tokens"


def token_uses() -> bytes:
    """Hash of the day (days since 1970-01-01) on which each token was used last, by id."""
    return b"authz:token_uses"


def late() -> bytes:
    """Stream of settles that only the office can book, after a look into the archive."""
    return b"authz:late"


def archive() -> bytes:
    """The id of the archive that alone may take entries out of the streams; written once."""
    return b"authz:archive"


def changes() -> bytes:
    """Stream of what operators and programs have changed, or tried to."""
    return b"authz:changes"


def switch_lease(name: str) -> bytes:
    """Which process serves a switch; gone when nobody has said so for a while."""
    return f"authz:switch:{name}".encode()


def switch_core(name: str) -> bytes:
    """The identity that a switch had when it was last connected; a restart changes it."""
    return f"authz:switch:{name}:core".encode()


def number_slots(tag: str, account_id: str, number: str) -> bytes:
    """Sorted set of the calls that an account has on one of its numbers, by their slot's end."""
    return f"authz:{{{tag}}}:slots:{account_id}:{number}".encode()


def switch_commands(name: str) -> bytes:
    """List of what the process that serves a switch is asked to do, oldest first."""
    return f"authz:switch:{name}:commands".encode()
