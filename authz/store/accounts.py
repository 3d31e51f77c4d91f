"""Accounts as the daemon knows them: configuration read from the store, cached, packed for scripts.

The version in an account's running state proves a cached configuration current: every script
compares it, and the engine reloads what turns out to be stale. Unknown accounts are not cached.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from authz.errors import InvalidInput, InvariantError
from authz.model import CHAIN_LENGTH_MAX, AccountConfig
from authz.money import parse_amount, percent_basis_points
from authz.reasons import CLASSES, CallClass
from authz.store import keys
from authz.store.constants import Recharge
from authz.store.layouts import ACCOUNT_STATE, LIMITS, NONE
from authz.store.scripts import script_for
from authz.validation import check_email
from authz_ext.packing import PreparedCall
from authz_ext.tables import Latest

if TYPE_CHECKING:
    from authz.store.client import StoreClient
    from authz_ext.briefing import Briefing
    from authz_ext.rating import Rate

_CACHED_CHAINS_MAX = 100_000
_MICROS_PER_SECOND = 1_000_000
#: Addresses that one account may name for its alerts.
_ALERT_ADDRESSES_MAX = 10
_decode_config = msgspec.json.Decoder(AccountConfig).decode
encode_config = msgspec.json.Encoder().encode


class Period(NamedTuple):
    """The day and month of an account's time zone, and the store seconds in which they hold."""

    day: int
    month: int
    valid_from: int
    valid_until: int


def period_at(zone: ZoneInfo, at: int) -> Period:
    """Return the local day (days since 1970-01-01) and month (year * 12 + month) at `at`."""
    local = dt.datetime.fromtimestamp(at, zone)
    today = local.date()
    midnight = dt.time(0, tzinfo=zone)
    start = dt.datetime.combine(today, midnight)
    end = dt.datetime.combine(today + dt.timedelta(days=1), midnight)
    return Period(
        today.toordinal() - dt.date(1970, 1, 1).toordinal(),
        today.year * 12 + today.month,
        int(start.timestamp()),
        int(end.timestamp()),
    )


class Account:
    """One account: its configuration in integers, ready for the scripts."""

    def __init__(self, account_id: str, version: int, config: AccountConfig) -> None:
        self.id = account_id
        self.version = version
        self.config = config
        self.zone = ZoneInfo(config.timezone)
        self.unlimited = config.credit_limit == "unlimited"
        self.credit_limit = 0 if self.unlimited else parse_amount(config.credit_limit)
        self._discounts = {
            CLASSES[name]: percent_basis_points(percent)
            for name, percent in config.discounts.items()
        }
        self._class_limits = {
            CLASSES[name]: limit for name, limit in config.max_calls_by_class.items()
        }
        self.trunk_classes = frozenset(CLASSES[name] for name in config.trunk_classes)
        self.blocked_classes = frozenset(CLASSES[name] for name in config.blocked_classes)
        self.blocked_prefixes = tuple(text.lstrip("+") for text in config.blocked_prefixes)
        self.allowed_prefixes = tuple(text.lstrip("+") for text in config.allowed_prefixes)
        self.max_call_cost = _optional(config.max_call_cost)
        max_rate = _optional(config.max_rate)
        self.max_rate_nanos = None if max_rate is None else max_rate * 1000
        trunks = config.trunks
        self.has_trunks = bool(trunks.inbound or trunks.outbound or trunks.twoway or trunks.burst)
        #: Whether its calls are counted or metered.
        self.has_call_limits = bool(
            config.max_calls is not None
            or config.max_calls_per_second is not None
            or config.max_calls_by_class
        )
        self._period: Period | None = None
        self._limits: dict[CallClass, bytes] = {}

    def discount(self, call_class: CallClass) -> int:
        """Return which part of calls to numbers of a class it does not pay, in basis points."""
        return self._discounts.get(call_class, 0)

    def discounted(self, rate: Rate, call_class: CallClass) -> Rate:
        """Return what the account pays of a deck's rate for calls to numbers of a class."""
        basis_points = self.discount(call_class)
        return rate.discounted(basis_points) if basis_points else rate

    def class_limit(self, call_class: CallClass) -> int | None:
        """Return the greatest number of concurrent calls of a class, or None."""
        return self._class_limits.get(call_class)

    def call_limits(self, call_class: CallClass) -> CallLimits:
        """Return the limits on the number of calls of a class."""
        config = self.config
        return CallLimits(
            self.id,
            self.version,
            _or_any(config.max_calls_per_second),
            _or_any(config.max_calls),
            _or_any(self.class_limit(call_class)),
        )

    def period(self, at: int) -> Period:
        """Return the account's day and month at store second `at`."""
        period = self._period
        if period is None or not period.valid_from <= at < period.valid_until:
            period = self._period = period_at(self.zone, at)
            self._limits.clear()
        return period

    def limits(self, call_class: CallClass, at: int) -> bytes:
        """Return the packed limits for a call of this class at store second `at`."""
        period = self.period(at)
        packed = self._limits.get(call_class)
        if packed is None:
            packed = self._limits[call_class] = self._pack_limits(call_class, period)
        return packed

    def _pack_limits(self, call_class: CallClass, period: Period) -> bytes:
        config = self.config
        interval, burst = self.arrival()
        low = config.low_balance
        recharge = config.auto_recharge
        if recharge is not None and not recharge.enabled:
            recharge = None
        return LIMITS.pack(
            version=self.version,
            credit_limit=self.credit_limit,
            unlimited=self.unlimited,
            per_minute=config.per_minute,
            trunks_inbound=config.trunks.inbound,
            trunks_outbound=config.trunks.outbound,
            trunks_twoway=config.trunks.twoway,
            trunks_burst=config.trunks.burst,
            calls_max=_or_any(config.max_calls),
            class_calls_max=_or_any(self.class_limit(call_class)),
            arrival_interval_us=interval,
            arrival_burst_us=burst,
            daily_limit=_limit(config.daily_spend_limit),
            monthly_limit=_limit(config.monthly_spend_limit),
            day=period.day,
            month=period.month,
            quiet_above=self._quiet_above(),
            low_threshold=NONE if low is None else parse_amount(low.threshold),
            low_repeat_seconds=(low.repeat_hours or 0) * 3600 if low else 0,
            recharge_mode=Recharge[recharge.mode.upper()] if recharge else Recharge.NONE,
            recharge_threshold=parse_amount(recharge.threshold) if recharge else 0,
            recharge_amount=parse_amount(recharge.amount) if recharge else 0,
            recharge_interval_seconds=recharge.min_interval_hours * 3600 if recharge else 0,
            recharge_monthly_cap=_limit(recharge.monthly_cap if recharge else None),
        )

    def _quiet_above(self) -> int:
        """Return the balance − used above which no alert or recharge can be due."""
        config = self.config
        thresholds = [NONE]
        if not self.unlimited:
            thresholds.append(-self.credit_limit)
            if config.low_balance is not None:
                thresholds.append(parse_amount(config.low_balance.threshold))
        if config.auto_recharge is not None and config.auto_recharge.enabled:
            thresholds.append(parse_amount(config.auto_recharge.threshold))
        return max(thresholds)

    def arrival(self) -> tuple[int, int]:
        """Return interval and burst tolerance of calls per second in µs.

        (0, 0): no limit; an interval of -1: none allowed.
        """
        per_second = self.config.max_calls_per_second
        if per_second is None:
            return 0, 0
        if per_second == 0:
            return -1, 0
        interval = _MICROS_PER_SECOND // per_second
        return interval, interval * (per_second - 1)


class CallLimits(NamedTuple):
    """How many calls of one class an account may have at a time and begin in a second; -1: any."""

    account: str
    version: int
    calls_per_second: int
    calls: int
    class_calls: int


class HourKeys(NamedTuple):
    """Keys of tombstones that an hour of the store (hours since 1970-01-01) goes with."""

    hour: int
    #: The filters of the hour's day, into which an authorize enters its call, and of the day
    #: before, at which it looks.
    filters: tuple[bytes, bytes]
    #: What a settle writes: the hour's tombstones.
    tombstones: tuple[bytes]


class Chain:
    """An account and its ancestors, leaf first, all in one bucket."""

    def __init__(self, tag: str, accounts: tuple[Account, ...], default_deck: str | None) -> None:
        self.tag = tag
        self.accounts = accounts
        chain_keys = [keys.account(tag, account.id) for account in accounts]
        padding = [chain_keys[0]] * (CHAIN_LENGTH_MAX - len(chain_keys))
        self.account_keys: tuple[bytes, ...] = tuple(chain_keys + padding)
        self.bucket_key = keys.bucket(tag)
        self.closed_prefix = keys.closed_prefix(tag)
        self.events_key = keys.events(tag)
        self.ledger_key = keys.ledger(tag)
        self.leases_key = keys.leases(tag)
        self.id = accounts[0].id
        self.ids = tuple(account.id for account in accounts)
        self.is_enabled = all(account.config.enabled for account in accounts)
        self.are_unlimited = tuple(account.unlimited for account in accounts)
        #: The shortest call that any account ends, in seconds; None if none does.
        self.max_call_seconds = min(
            (
                account.config.max_call_seconds
                for account in accounts
                if account.config.max_call_seconds is not None
            ),
            default=None,
        )
        self.has_cost_limits = any(account.max_call_cost is not None for account in accounts)
        #: What the engine tells the scripts alike of all its calls, for as long as that holds.
        self.briefing: Briefing | None = None
        self.has_call_limits = any(account.has_call_limits for account in accounts)
        self.deck_ids = tuple(
            next((one.config.deck for one in accounts[leg:] if one.config.deck), default_deck)
            for leg in range(len(accounts))
        )
        self._call_prefix = keys.call(tag, self.id, "")
        self._shared_keys = (
            self.leases_key,
            self.closed_prefix,
            self.bucket_key,
            self.ledger_key,
            self.events_key,
        )
        self._authorize_keys = (self.leases_key, self.closed_prefix, self.events_key)
        self._own_keys = tuple(chain_keys)
        self._hour_keys: HourKeys | None = None
        #: By verb, with the keys of an hour that it is prepared with.
        self._prepared: dict[str, tuple[tuple[bytes, ...], PreparedCall]] = {}
        self._validity = (0, 0)
        self._limits: dict[CallClass, tuple[bytes, ...]] = {}
        self._call_limits: dict[CallClass, tuple[CallLimits, ...]] = {}

    def prepared(self, verb: str, hour_keys: tuple[bytes, ...] = ()) -> PreparedCall:
        """Return the script of a verb about a call, prepared with these of an hour's keys."""
        known = self._prepared.get(verb)
        # An hour's keys are the same tuple for as long as they hold.
        if known is None or known[0] is not hour_keys:
            known = self._prepared[verb] = (hour_keys, self._prepare(verb, hour_keys))
        return known[1]

    def _prepare(self, verb: str, hour_keys: tuple[bytes, ...]) -> PreparedCall:
        script = script_for(verb, len(self.accounts))
        # Every key that is passed costs the store as much as reading a number from a record.
        if script.legs is None:
            others = (*self._shared_keys, *self.account_keys)
        elif verb == "authorize":
            others = (*self._authorize_keys, *hour_keys, *self._own_keys)
        else:
            others = (*self._shared_keys, *hour_keys, *self._own_keys)
        script.check_keys(1 + len(others))
        return PreparedCall(script, self._call_prefix, others)

    def hour_keys(self, at: int) -> HourKeys:
        """Return the keys that go with the hour of store second `at`."""
        known = self._hour_keys
        hour = at // 3600
        if known is None or known.hour != hour:
            today, before = (keys.closed_filter(self.tag, hour // 24 - back) for back in (0, 1))
            closed = keys.closed(self.tag, hour)
            known = self._hour_keys = HourKeys(hour, (today, before), (closed,))
        return known

    def validity(self, at: int) -> tuple[int, int]:
        """Return the store seconds in which every account's day and month numbers hold."""
        known = self._validity
        if not known[0] <= at < known[1]:
            periods = [account.period(at) for account in self.accounts]
            known = self._validity = (
                max(period.valid_from for period in periods),
                min(period.valid_until for period in periods),
            )
            self._limits.clear()
        return known

    def call_limits(self, call_class: CallClass) -> tuple[CallLimits, ...]:
        """Return every account's limits on the number of calls of this class."""
        known = self._call_limits.get(call_class)
        if known is None:
            known = tuple(account.call_limits(call_class) for account in self.accounts)
            self._call_limits[call_class] = known
        return known

    def limits(self, call_class: CallClass, at: int) -> tuple[bytes, ...]:
        """Return every account's packed limits for a call of this class at store second `at`."""
        self.validity(at)
        packed = self._limits.get(call_class)
        if packed is None:
            packed = tuple(account.limits(call_class, at) for account in self.accounts)
            self._limits[call_class] = packed
        return packed


def _optional(amount: str | None) -> int | None:
    return None if amount is None else parse_amount(amount)


def _or_any(limit: int | None) -> int:
    return -1 if limit is None else limit


def _limit(amount: str | None) -> int:
    return -1 if amount is None else parse_amount(amount)


def check_config(config: AccountConfig) -> None:
    """Raise InvalidInput naming the first field of a configuration that makes no sense."""
    try:
        ZoneInfo(config.timezone)
    except (ValueError, OSError, KeyError):
        raise InvalidInput("timezone", f"no time zone {config.timezone!r}") from None
    if config.credit_limit != "unlimited":
        _check_not_negative("credit_limit", config.credit_limit)
    for name in ("max_call_cost", "max_rate", "daily_spend_limit", "monthly_spend_limit"):
        _check_not_negative(name, getattr(config, name))
    for name, percent in config.discounts.items():
        percent_basis_points(percent, f"discounts.{name}")
    if config.low_balance is not None:
        parse_amount(config.low_balance.threshold, "low_balance.threshold")
    if config.auto_recharge is not None:
        parse_amount(config.auto_recharge.threshold, "auto_recharge.threshold")
        if parse_amount(config.auto_recharge.amount, "auto_recharge.amount") <= 0:
            raise InvalidInput("auto_recharge.amount", "must be above 0")
        _check_not_negative("auto_recharge.monthly_cap", config.auto_recharge.monthly_cap)
        if config.auto_recharge.mode == "credit" and config.parent is None:
            raise InvalidInput(
                "auto_recharge.mode", "`credit` is for sub-accounts: a master's balance is money"
            )
    addresses = alert_addresses(config) or ()
    if len(addresses) > _ALERT_ADDRESSES_MAX:
        raise InvalidInput("metadata.alert_email", f"more than {_ALERT_ADDRESSES_MAX} addresses")
    for address in addresses:
        try:
            check_email(address)
        except ValueError as error:
            raise InvalidInput("metadata.alert_email", str(error)) from None
    if sum(len(key) + len(value) for key, value in config.metadata.items()) > 16_384:
        raise InvalidInput("metadata", "more than 16 KiB")


def alert_addresses(config: AccountConfig) -> tuple[str, ...] | None:
    """Return who is mailed about an account, of `metadata.alert_email`: addresses with commas.

    None where the account says nothing, so that its parent's apply; empty where it wants none.
    """
    text = config.metadata.get("alert_email")
    if text is None:
        return None
    return tuple(address.strip() for address in text.split(",") if address.strip())


def _check_not_negative(name: str, amount: str | None) -> None:
    if amount is not None and parse_amount(amount, name) < 0:
        raise InvalidInput(name, "must not be negative")


class AccountRecord(NamedTuple):
    """An account as stored: configuration and running state (layouts.ACCOUNT_STATE)."""

    id: str
    config: AccountConfig
    state: Any


class AccountDirectory:
    """Finds accounts in the store and keeps the chains of those in use."""

    def __init__(self, client: StoreClient, default_deck: str | None = None) -> None:
        self._client = client
        self._default_deck = default_deck
        self._chains: Latest[str, Chain] = Latest(_CACHED_CHAINS_MAX)
        self._roots: Latest[str, str] = Latest(_CACHED_CHAINS_MAX)
        #: Returns an account's chain if this process has it; it may be stale.
        self.cached: Callable[[str], Chain | None] = self._chains.get

    def forget(self, account_id: str) -> None:
        """Drop a chain that a script has called stale."""
        self._chains.pop(account_id)

    def forget_all(self) -> None:
        """Drop everything: a store that lost its last moments gives versions and names anew."""
        self._chains.clear()
        self._roots.clear()

    async def chain(self, account_id: str, deadline_ms: int = 1000) -> Chain | None:
        """Return the chain of an account, or None if it or an ancestor does not exist."""
        chain = self._chains.get(account_id)
        if chain is not None:
            return chain
        tag = await self.tag_of(account_id, deadline_ms)
        if tag is None:
            return None
        accounts: list[Account] = []
        current: str | None = account_id
        while current is not None:
            if len(accounts) == CHAIN_LENGTH_MAX:
                raise InvariantError(f"the chain of {account_id} is too long")
            record = await self._read(tag, current, deadline_ms)
            if record is None:
                return None
            accounts.append(Account(record.id, record.state.version, record.config))
            current = record.config.parent
        chain = Chain(tag, tuple(accounts), self._default_deck)
        self._chains.put(account_id, chain)
        return chain

    async def tag_of(self, account_id: str, deadline_ms: int = 1000) -> str | None:
        """Return the hash tag of an account's bucket, or None if it never existed."""
        root = self._roots.get(account_id)
        if root is None:
            answer = await self._client.execute(
                "GET", keys.root(account_id), deadline_ms=deadline_ms
            )
            if answer is None:
                return None
            root = answer.decode()
            self._roots.put(account_id, root)
        return keys.tag_of_root(root)

    async def read(self, account_id: str) -> AccountRecord | None:
        """Return an account as it is stored now, or None."""
        tag = await self.tag_of(account_id)
        return None if tag is None else await self._read(tag, account_id, 1000)

    async def last_config(self, account_id: str) -> AccountConfig | None:
        """Return an account's configuration, of a closed one its last, or None."""
        tag = await self.tag_of(account_id)
        if tag is None:
            return None
        config = await self._client.execute("HGET", keys.account(tag, account_id), "c")
        return None if config is None else _decode_config(config)

    async def _read(self, tag: str, account_id: str, deadline_ms: int) -> AccountRecord | None:
        state, config = await self._client.execute(
            "HMGET", keys.account(tag, account_id), "s", "c", deadline_ms=deadline_ms
        )
        if state is None or config is None:
            return None
        return AccountRecord(account_id, _decode_config(config), ACCOUNT_STATE.unpack(state))

    async def states(self, chain: Chain) -> Sequence[Any] | None:
        """Return the running state of every account of a chain, or None if one is gone."""
        states = []
        for account in chain.accounts:
            packed = await self._client.execute("HGET", keys.account(chain.tag, account.id), "s")
            if packed is None:
                return None
            states.append(ACCOUNT_STATE.unpack(packed))
        return states

    async def is_current(self, chain: Chain, deadline_ms: int = 1000) -> bool:
        """Return whether the store still has the versions that this chain was read with."""
        for account in chain.accounts:
            packed = await self._client.execute(
                "HGET", keys.account(chain.tag, account.id), "s", deadline_ms=deadline_ms
            )
            if packed is None or ACCOUNT_STATE.unpack(packed).version != account.version:
                return False
        return True


def available(state: Any, account: Account) -> int | None:
    """Return balance − held + credit_limit in micros; None for an unlimited account."""
    if account.unlimited:
        return None
    return int(state.balance - state.held + account.credit_limit)


__all__ = [
    "Account", "AccountDirectory", "AccountRecord", "Chain", "Period",
    "alert_addresses", "available", "check_config", "encode_config", "period_at",
]  # fmt: skip
