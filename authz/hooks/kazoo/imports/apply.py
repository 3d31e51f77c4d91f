"""Writes imported accounts, or says what writing them would change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from authz.engine.accounts import AccountService, patched
from authz.errors import Conflict, InvalidInput, NotFound
from authz.hooks.kazoo.imports.accounts import ImportedAccount, Remark
from authz.model import CHAIN_LENGTH_MAX, AccountConfig
from authz.store.accounts import check_config

Progress = Callable[[int, int], None]
_PARENT_MISSING: Final = "is in neither the store nor these documents"


class FieldChange(Struct, frozen=True):
    """A field that an import changes; before is None where the account is new."""

    field: str
    before: Any
    after: Any


class AccountChange(Struct, frozen=True):
    """What becomes of one account."""

    account: str
    parent: str | None
    is_new: bool
    fields: tuple[FieldChange, ...]


class Plan(Struct, frozen=True):
    """What an import would do, and why it does not do it to some accounts."""

    accounts: tuple[ImportedAccount, ...]
    changes: tuple[AccountChange, ...]
    unchanged: int
    remarks: tuple[Remark, ...]


async def plan_accounts(
    service: AccountService, imported: Sequence[ImportedAccount], currency: str
) -> Plan:
    """Compare imported accounts with those of the store, changing nothing.

    New ones get `currency`, or that of their parent. Raises StoreError.
    """
    configs: dict[str, AccountConfig] = {}
    changes: list[AccountChange] = []
    remarks: list[Remark] = []
    usable: list[ImportedAccount] = []
    for one in imported:
        try:
            before, after = await _planned(service, one, currency, configs)
        except (InvalidInput, Conflict) as error:
            field = error.field if isinstance(error, InvalidInput) else ""
            reason = error.detail if isinstance(error, InvalidInput) else str(error)
            remarks.append(Remark(one.place, one.id, field, "", reason, refuses=True))
            continue
        configs[one.id] = after
        usable.append(one)
        differing = _differences(before, after)
        if before is None or differing:
            changes.append(AccountChange(one.id, after.parent, before is None, differing))
    changed = {change.account for change in changes}
    return Plan(
        accounts=tuple(one for one in usable if one.id in changed),
        changes=tuple(changes),
        unchanged=len(usable) - len(changes),
        remarks=tuple(remarks),
    )


async def apply_plan(service: AccountService, plan: Plan, currency: str, progress: Progress) -> int:
    """Write the accounts of a plan, resellers first; return how many.

    May be repeated: what is written already is left as it is. Raises StoreError, or Conflict and
    InvalidInput where the store has changed since the plan was made.
    """
    for number, one in enumerate(plan.accounts, 1):
        existing = await _existing(service, one.id)
        if existing is None:
            config = await _new_config(service, one, currency, {})
            await service.put(one.id, config)
        else:
            await service.patch(one.id, one.changes)
        progress(number, len(plan.accounts))
    return len(plan.accounts)


async def _planned(
    service: AccountService,
    one: ImportedAccount,
    currency: str,
    configs: dict[str, AccountConfig],
) -> tuple[AccountConfig | None, AccountConfig]:
    before = await _existing(service, one.id)
    if before is None:
        after = await _new_config(service, one, currency, configs)
    else:
        if one.parent and one.parent != before.parent:
            raise Conflict(f"its parent is {before.parent or 'nobody'}, not {one.parent}")
        after = patched(before, one.changes)
    check_config(after)
    if before is None:
        await _check_depth(service, after.parent, configs)
    return before, after


async def _new_config(
    service: AccountService,
    one: ImportedAccount,
    currency: str,
    configs: dict[str, AccountConfig],
) -> AccountConfig:
    parent = None
    if one.parent:
        parent = configs.get(one.parent) or await _existing(service, one.parent)
        if parent is None:
            raise InvalidInput("pvt_reseller_id", f"{one.parent} {_PARENT_MISSING}")
    start = AccountConfig(
        parent=one.parent or None, currency=currency if parent is None else parent.currency
    )
    return patched(start, one.changes)


async def _check_depth(
    service: AccountService, parent: str | None, configs: dict[str, AccountConfig]
) -> None:
    """Refuse a chain that the store would refuse when it is half written."""
    length = 1
    while parent is not None:
        length += 1
        if length > CHAIN_LENGTH_MAX:
            raise Conflict(f"it has more than {CHAIN_LENGTH_MAX - 1} resellers above it")
        config = configs.get(parent) or await _existing(service, parent)
        parent = None if config is None else config.parent


async def _existing(service: AccountService, account_id: str) -> AccountConfig | None:
    try:
        return (await service.read(account_id)).config
    except NotFound:
        return None


def _differences(before: AccountConfig | None, after: AccountConfig) -> tuple[FieldChange, ...]:
    old = msgspec.to_builtins(AccountConfig() if before is None else before)
    new = msgspec.to_builtins(after)
    return tuple(
        FieldChange(name, None if before is None else old[name], value)
        for name, value in new.items()
        if value != old[name] and not (before is None and name == "parent")
    )
