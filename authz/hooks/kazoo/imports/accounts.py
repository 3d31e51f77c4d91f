"""From Kazoo's limits and account documents to accounts: what is taken over, and what cannot be.

A private field (`pvt_…`, which only operators can write) goes before the public one as in Kazoo:
the smaller of two limits holds, and -1 is no limit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from msgspec import Struct

from authz.hooks.kazoo import limits
from authz.hooks.kazoo.imports.discounts import Notes, discounts_of
from authz.hooks.kazoo.imports.documents import (
    Document,
    DocumentError,
    Fields,
    amount_micros,
    flag,
    integer,
    limit_micros,
)
from authz.model import ACCOUNT_ID_PATTERN
from authz.money import format_amount

#: A trunk limit of -1 leaves nothing over; authz has no word for it but more than anybody uses.
TRUNKS_UNLIMITED: Final = 1_000_000
_LIMIT_MAX: Final = 1_000_000
_CIRCLE: Final = "the resellers of these accounts form a circle"
_RULE_LENGTH_MAX: Final = 256
_REPEAT_HOURS: Final = 24
_ACCOUNT_ID: Final = re.compile(ACCOUNT_ID_PATTERN)
#: Fields that mark a limits document that says not what it is.
_LIMITS_FIELDS: Final = frozenset(
    prefix + name
    for prefix in ("", "pvt_")
    for name in (
        "inbound_trunks", "outbound_trunks", "twoway_trunks", "burst_trunks", "calls",
        "resource_consuming_calls", "allow_prepay", "allow_postpay", "max_postpay_amount",
    )
)  # fmt: skip


class Remark(Struct, frozen=True):
    """What somebody should know of a document. One that `refuses` keeps it from being used."""

    place: str
    account: str
    field: str
    value: str
    reason: str
    refuses: bool = False


class ImportedAccount(Struct, frozen=True):
    """What documents say of one account, as fields of authz's accounts.

    `changes` is a merge patch as `authz account set` takes it. `parent` is its reseller, "" where
    no document names one.
    """

    id: str
    place: str
    parent: str
    changes: dict[str, Any]


class Reading(Struct, frozen=True):
    """The accounts that documents are about, resellers first, and what there is to remark."""

    accounts: tuple[ImportedAccount, ...]
    remarks: tuple[Remark, ...]
    #: Documents that are about neither limits nor accounts.
    others: int

    @property
    def refused(self) -> int:
        """How many remarks keep a document from being used."""
        return sum(remark.refuses for remark in self.remarks)


def read_accounts(
    documents: Iterable[Document], account_id: str | None = None, reseller_id: str | None = None
) -> Reading:
    """Return what documents say of accounts.

    `account_id` is whose a limits document is that names nobody, as the API's; `reseller_id` the
    parent of accounts of which no document says it.
    """
    reader = _Reader(account_id, reseller_id)
    for document in documents:
        reader.take(document)
    return reader.finish()


class _Reader:
    """One import under way: what is known of each account so far."""

    def __init__(self, account_id: str | None, reseller_id: str | None) -> None:
        self._account_id = account_id
        self._reseller_id = reseller_id
        self._limits: dict[str, Document] = {}
        self._accounts: dict[str, Document] = {}
        self._remarks: list[Remark] = []
        self._others = 0

    def take(self, document: Document) -> None:
        """Sort one document; a second one of the same kind and account is refused."""
        fields = document.fields
        kind = _kind_of(fields)
        if kind is None:
            self._others += 1
            return
        name = _owner_of(fields, kind) or self._account_id or ""
        if not _ACCOUNT_ID.match(name):
            reason = "names no account: pvt_account_id is missing" if not name else "is no id"
            self._refuse(document, name[:80], "pvt_account_id", name, reason)
            return
        known = self._limits if kind == "limits" else self._accounts
        if name in known:
            reason = f"{known[name].place} is a {kind} document of the same account"
            self._refuse(document, name, "_id", "", reason)
            return
        known[name] = document

    def finish(self) -> Reading:
        """Return everything, an account after its parent."""
        found = {}
        for name in {**self._accounts, **self._limits}:
            imported = self._read(name)
            if imported is not None:
                found[name] = imported
        ordered = self._ordered(found)
        return Reading(tuple(ordered), tuple(self._remarks), self._others)

    def _read(self, name: str) -> ImportedAccount | None:
        """Return what an account's documents say; None where one of them is refused."""
        changes: dict[str, Any] = {}
        parent = self._reseller_id if self._reseller_id != name else ""
        readings = (
            (self._accounts.get(name), _account_changes),
            (self._limits.get(name), _limits_changes),
        )
        place = ""
        for document, read in readings:
            if document is None:
                continue
            place = place or document.place
            notes: list[tuple[str, object, str]] = []
            try:
                found = read(document.fields, notes)
                if read is _account_changes:
                    parent = _reseller_of(document.fields, name) or parent
            except DocumentError as error:
                self._refuse(document, name, error.field, error.value, error.reason)
                return None
            texts = {**changes.get("metadata", {}), **found.get("metadata", {})}
            changes |= found | ({"metadata": texts} if texts else {})
            for field, value, reason in notes:
                self._remarks.append(Remark(document.place, name, field, _short(value), reason))
        return ImportedAccount(name, place, parent or "", changes)

    def _ordered(self, found: Mapping[str, ImportedAccount]) -> list[ImportedAccount]:
        ordered: dict[str, ImportedAccount] = {}
        for one in found.values():
            line: list[ImportedAccount] = []
            names: set[str] = set()
            at: ImportedAccount | None = one
            while at is not None and at.id not in ordered and at.id not in names:
                names.add(at.id)
                line.append(at)
                at = found.get(at.parent)
            if at is not None and at.id in names:
                remark = Remark(
                    one.place, one.id, "pvt_reseller_id", one.parent, _CIRCLE, refuses=True
                )
                self._remarks.append(remark)
                continue
            for each in reversed(line):
                ordered[each.id] = each
        return list(ordered.values())

    def _refuse(
        self, document: Document, account: str, field: str, value: str, reason: str
    ) -> None:
        self._remarks.append(
            Remark(document.place, account, field, _short(value), reason, refuses=True)
        )


def _kind_of(fields: Fields) -> str | None:
    kind = fields.get("pvt_type")
    if kind in ("limits", "account"):
        return str(kind)
    if kind is not None:
        return None
    if fields.get("_id") == "limits" or fields.keys() & _LIMITS_FIELDS:
        return "limits"
    # The API hides what begins with pvt_; of all documents only an account has a realm.
    return "account" if isinstance(fields.get("realm"), str) else None


def _owner_of(fields: Fields, kind: str) -> str | None:
    names = ("pvt_account_id", "account_id") if kind == "limits" else ("_id", "id")
    for name in names:
        if isinstance(fields.get(name), str) and fields[name]:
            return str(fields[name])
    return None


def _reseller_of(fields: Fields, account_id: str) -> str:
    reseller = fields.get("pvt_reseller_id") or fields.get("reseller_id") or ""
    if not isinstance(reseller, str) or (reseller and not _ACCOUNT_ID.match(reseller)):
        raise DocumentError("pvt_reseller_id", reseller, "is no account's id")
    return "" if reseller == account_id else reseller


def _limits_changes(fields: Fields, notes: Notes) -> dict[str, Any]:
    """Return the merge patch that a limits document amounts to; raise DocumentError."""
    changes = {
        "trunks": _trunks(fields, notes),
        "max_calls": _max_calls(fields, notes),
        **_credit(fields, notes),
        "discounts": discounts_of(fields, notes),
        "metadata": _metadata(fields),
    }
    allotments = fields.get("allotments")
    if allotments:
        reason = "included minutes are not known here: calls cost what the deck says"
        names = ",".join(sorted(allotments)) if isinstance(allotments, dict) else allotments
        notes.append(("allotments", names, reason))
    return changes


def _trunks(fields: Fields, notes: Notes) -> dict[str, int]:
    trunks = {}
    for name in ("inbound", "outbound", "twoway", "burst"):
        limit = _trunk_limit(fields, f"{name}_trunks")
        if limit > _LIMIT_MAX:
            raise DocumentError(f"{name}_trunks", limit, f"is above {_LIMIT_MAX}")
        trunks[name] = TRUNKS_UNLIMITED if limit < 0 and name != "burst" else max(limit, -1)
        bundle = fields.get(f"pvt_bundled_{name}_trunks")
        if bundle:
            notes.append(
                (f"pvt_bundled_{name}_trunks", bundle,
                 f"Kazoo adds one trunk for each of the account's enabled {bundle}, which these "
                 "documents do not count: add them")
            )  # fmt: skip
    return trunks


def _trunk_limit(fields: Fields, name: str) -> int:
    public = integer(fields, name)
    public = 0 if public is None else public
    private = integer(fields, f"pvt_{name}")
    if private is None or private < 0:
        return public
    # As Kazoo compares them: a public -1 is below any private limit.
    return 0 if private == 0 else min(private, public)


def _call_limit(fields: Fields, name: str) -> int | None:
    """Return a limit on calls, None for no limit: the smaller one of private and public."""
    known = [integer(fields, name), integer(fields, f"pvt_{name}")]
    limits_known = [limit for limit in known if limit is not None and limit >= 0]
    for limit in limits_known:
        if limit > _LIMIT_MAX:
            raise DocumentError(name, limit, f"is above {_LIMIT_MAX}")
    return min(limits_known, default=None)


def _max_calls(fields: Fields, notes: Notes) -> int | None:
    calls = _call_limit(fields, "calls")
    consuming = _call_limit(fields, "resource_consuming_calls")
    if calls is not None and consuming is not None and calls != consuming:
        notes.append(
            ("resource_consuming_calls", consuming,
             f"calls is {calls}: authz counts only calls that use a carrier, so that the smaller "
             "one is max_calls")
        )  # fmt: skip
    return min((limit for limit in (calls, consuming) if limit is not None), default=None)


def _credit(fields: Fields, notes: Notes) -> dict[str, Any]:
    prepay = _private_flag(fields, "allow_prepay")
    if prepay is None:
        prepay = flag(fields, "allow_prepay")
    prepay = True if prepay is None else prepay
    postpay = _private_flag(fields, "allow_postpay") or False
    greatest = 0
    value = fields.get("pvt_max_postpay_amount")
    if value is not None:
        greatest = limit_micros("pvt_max_postpay_amount", value)
    if fields.get("pvt_reserve_amount") is not None:
        notes.append(
            ("pvt_reserve_amount", fields["pvt_reserve_amount"],
             "is not needed: each call holds what it may cost")
        )  # fmt: skip
    return {
        "per_minute": prepay or postpay,
        "credit_limit": format_amount(greatest if postpay else 0),
    }


def _private_flag(fields: Fields, name: str) -> bool | None:
    return flag(fields, f"pvt_{name}")


def _metadata(fields: Fields) -> dict[str, str | None]:
    """Return what authz has no field for; None takes away what an earlier import has left."""
    types = fields.get("pvt_authz_resource_types", fields.get("authz_resource_types"))
    return {
        limits.ENABLED: "false" if _private_flag(fields, "enabled") is False else None,
        limits.SOFT_LIMIT_INBOUND: "true" if _private_flag(fields, "soft_limit_inbound") else None,
        limits.SOFT_LIMIT_OUTBOUND: (
            "true" if _private_flag(fields, "soft_limit_outbound") else None
        ),
        limits.RESOURCE_TYPES: _words(types),
        limits.INBOUND_PER_DID: _rules(fields.get("pvt_inbound_channels_per_did_rules")),
    }


def _words(value: object) -> str | None:
    if not value:
        return None
    if not isinstance(value, list) or not all(
        isinstance(word, str) and re.fullmatch(r"[!-+.-~]{1,64}", word) for word in value
    ):
        raise DocumentError("authz_resource_types", value, "is not a list of words")
    return ",".join(value)


def _rules(value: object) -> str | None:
    field = "pvt_inbound_channels_per_did_rules"
    if not value:
        return None
    if not isinstance(value, dict):
        raise DocumentError(field, value, "is not an object")
    rules = {}
    for pattern in value:
        limit = integer(value, pattern)
        if limit is None or not -1 <= limit <= _LIMIT_MAX:
            raise DocumentError(field, pattern, f"its limit {limit} is not from -1 to {_LIMIT_MAX}")
        if len(pattern) > _RULE_LENGTH_MAX:
            raise DocumentError(field, pattern, f"is longer than {_RULE_LENGTH_MAX} characters")
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise DocumentError(field, pattern, f"is no regular expression: {error}") from None
        rules[pattern] = limit
    return json.dumps(rules, sort_keys=True, separators=(",", ":"))


def _account_changes(fields: Fields, notes: Notes) -> dict[str, Any]:
    """Return the merge patch that an account's own document amounts to; raise DocumentError."""
    changes: dict[str, Any] = {}
    known = [flag(fields, name) for name in ("pvt_enabled", "enabled")]
    if known != [None, None]:
        changes["enabled"] = False not in known
    if isinstance(fields.get("timezone"), str):
        changes["timezone"] = fields["timezone"]
    topup = fields.get("topup")
    threshold = None
    if isinstance(topup, dict) and topup:
        recharge = {name: _positive(topup, name) for name in ("threshold", "amount")}
        threshold = recharge["threshold"]
        changes["auto_recharge"] = {**recharge, "mode": "request", "min_interval_hours": 24}
    notifications = fields.get("notifications")
    low = notifications.get("low_balance") if isinstance(notifications, dict) else None
    if isinstance(low, dict) and low.get("threshold") is not None:
        where = "notifications.low_balance.threshold"
        threshold = format_amount(amount_micros(where, low["threshold"]))
    if isinstance(low, dict) and flag(low, "enabled") is False:
        threshold = None
    if threshold is not None:
        changes["low_balance"] = {"threshold": threshold, "repeat_hours": _REPEAT_HOURS}
    if isinstance(fields.get("name"), str):
        changes["metadata"] = {"name": fields["name"][:200]}
    return changes


def _positive(fields: Fields, name: str) -> str:
    micros = amount_micros(f"topup.{name}", fields.get(name))
    if micros <= 0:
        raise DocumentError(f"topup.{name}", fields.get(name), "is not above 0")
    return format_amount(micros)


def _short(value: object) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= 80 else text[:80] + "…"
