-- Alerts and recharge requests: one event per crossing, in the script that crosses.
--- @include "accounts"
--- @include "ledger"
--- @layout recharge_request

--- @seldom
local function emit(events_key, event, account, ...)
  redis.call("XADD", events_key, "*", "event", event, "account", account_name(account),
    "at", now_seconds, ...)
end

-- What the thresholds look at: booked, less what running calls have reported.
--- @seldom
local function effective_balance(account)
  return account.balance - account.used
end

--- @seldom
local function alert_low(events_key, account)
  local limits = open_limits(account.limits)
  local value = effective_balance(account)
  -- An unlimited leg never runs short, so that nobody needs to be told of its balance.
  if limits.unlimited == 1 then
    return
  end
  if limits.low_threshold ~= LIMIT_NONE and value <= limits.low_threshold then
    local repeat_seconds = limits.low_repeat_seconds
    if account.low_at == 0
      or (repeat_seconds > 0 and now_seconds - account.low_at >= repeat_seconds) then
      account.low_at = now_seconds
      emit(events_key, "balance.low", account, "balance", value,
        "threshold", limits.low_threshold)
    end
  end
  if value + limits.credit_limit <= 0 and account.exhausted_at == 0 then
    account.exhausted_at = now_seconds
    emit(events_key, "balance.exhausted", account, "balance", value,
      "credit_limit", limits.credit_limit)
  end
end

-- Re-arms what a credit (or a new limit) has lifted above its threshold.
--- @seldom
local function rearm(events_key, account)
  local limits = open_limits(account.limits)
  open_account_state(account)
  local value = effective_balance(account)
  if account.low_at ~= 0
    and (limits.low_threshold == LIMIT_NONE or value > limits.low_threshold) then
    account.low_at = 0
  end
  if account.exhausted_at ~= 0 and (limits.unlimited == 1 or value + limits.credit_limit > 0) then
    account.exhausted_at = 0
    emit(events_key, "balance.restored", account, "balance", value,
      "credit_limit", limits.credit_limit)
  end
end

-- Returns the mark that a spend still deserves under a limit that may have been raised.
--- @seldom
local function spend_mark(spend, limit, mark)
  if limit < 0 or spend * 100 < limit * SPEND_WARNING_PERCENT then
    return 0
  end
  return spend < limit and math.min(mark, 1) or mark
end

--- @seldom
local function alert_spend(events_key, account, period, spend, limit, mark)
  if limit < 0 then
    return mark
  end
  if spend >= limit and mark < 2 then
    emit(events_key, "spend_limit.reached", account, "period", period, "spend", spend,
      "limit", limit)
    return 2
  end
  if spend * 100 >= limit * SPEND_WARNING_PERCENT and mark < 1 then
    emit(events_key, "spend_limit.warning", account, "period", period, "spend", spend,
      "limit", limit)
    return 1
  end
  return mark
end

--- @seldom
local function recharge_identity(account, number)
  return account_name(account) .. "-" .. string.format("%.0f", number)
end

--- @seldom
local function roll_recharge_month(account)
  open_account_state(account)
  if account.recharge_month ~= account.limits.month then
    account.recharge_month, account.recharge_month_amount = account.limits.month, 0
  end
end

--- @seldom
local function recharges_key(account)
  return string.match(account.key, "^.-}:") .. "recharges"
end

-- Has the sweeper look at the account at `at`: by then no call may come that would.
--- @seldom
local function look_again(account, at)
  redis.call("ZADD", string.match(account.key, "^.-}:") .. "recharge_checks", at,
    account_name(account))
end

-- Notes what became of a request that may still be credited; returns its amount, or nil.
--- @seldom
local function mark_recharge(account, identity, state)
  local packed = redis.call("HGET", recharges_key(account), identity)
  if not packed then
    return nil
  end
  local known = unpack_recharge_request(packed)
  redis.call("HSET", recharges_key(account), identity, pack_recharge_request({
    layout = LAYOUT_NUMBER, state = state, amount = known.amount,
    requested_at = known.requested_at, changed_at = now_seconds}))
  return known.amount
end

-- Counts a recharge that came about, for the interval and the cap; already in the balance.
--- @seldom
local function succeed_recharge(events_key, account, number, amount)
  roll_recharge_month(account)
  account.recharge_succeeded_at = now_seconds
  account.recharge_failures = 0
  account.recharge_month_amount = account.recharge_month_amount + amount
  if account.recharge_pending == number then
    account.recharge_pending = 0
  end
  local identity = recharge_identity(account, number)
  redis.call("HDEL", recharges_key(account), identity)
  emit(events_key, "recharge.succeeded", account, "recharge", identity,
    "amount", amount, "balance", effective_balance(account))
end

-- Gives up a request that was pending for too long; its money is still taken if it comes.
--- @seldom
local function expire_recharge(events_key, account)
  if account.recharge_pending == 0
    or now_seconds - account.recharge_at < RECHARGE_PENDING_SECONDS then
    return
  end
  local identity = recharge_identity(account, account.recharge_pending)
  local amount = mark_recharge(account, identity, RECHARGE_EXPIRED)
  account.recharge_pending = 0
  account.recharge_failures = account.recharge_failures + 1
  emit(events_key, "recharge.expired", account, "recharge", identity,
    "amount", amount or account.limits.recharge_amount)
end

-- Returns the second from which on a recharge that is needed may be asked for.
--- @seldom
local function recharge_due_at(account)
  local limits = account.limits
  if account.recharge_pending ~= 0 then
    return account.recharge_at + RECHARGE_PENDING_SECONDS
  end
  local due_at = 0
  if account.recharge_succeeded_at ~= 0 then
    due_at = account.recharge_succeeded_at + limits.recharge_interval_seconds
  end
  local failures = math.min(account.recharge_failures, 8)
  if failures > 0 then
    due_at = math.max(due_at, account.recharge_at + RECHARGE_RETRY_SECONDS * 2 ^ (failures - 1))
  end
  if due_at > now_seconds then
    return due_at
  end
  roll_recharge_month(account)
  if limits.recharge_monthly_cap >= 0
    and account.recharge_month_amount + limits.recharge_amount > limits.recharge_monthly_cap then
    return now_seconds + RECHARGE_CAPPED_SECONDS
  end
  return due_at
end

--- @seldom
local function request_recharge(events_key, account, identity)
  local amount = account.limits.recharge_amount
  account.recharge_pending = account.recharge_number
  redis.call("HSET", recharges_key(account), identity, pack_recharge_request({
    layout = LAYOUT_NUMBER, state = RECHARGE_PENDING, amount = amount,
    requested_at = now_seconds, changed_at = now_seconds}))
  look_again(account, now_seconds + RECHARGE_PENDING_SECONDS)
  emit(events_key, "recharge.due", account, "recharge", identity,
    "amount", amount, "balance", effective_balance(account))
end

--- @seldom
local function credit_recharge(bucket_key, ledger_key, events_key, account, identity)
  local amount = account.limits.recharge_amount
  local name = account_name(account)
  move_balance(account, amount)
  append_entry(bucket_key, ledger_key, {account},
    {kind = KIND_RECHARGE, marks = 0, call_class = 0, direction = 0, seconds = 0,
      started_at = now_seconds},
    {{billing = BILLING_FREE, amount = amount}},
    struct.pack("Bc0Bc0BB", #name, name, #identity, identity, 0, 0))
  rearm(events_key, account)
  succeed_recharge(events_key, account, account.recharge_number, amount)
end

-- Requests a recharge, or raises a sub-account's limit at once in mode `credit`.
--- @seldom
local function recharge(bucket_key, ledger_key, events_key, account)
  local limits = account.limits
  if limits.recharge_mode == RECHARGE_NONE
    or effective_balance(account) >= limits.recharge_threshold then
    return
  end
  expire_recharge(events_key, account)
  local due_at = recharge_due_at(account)
  if due_at > now_seconds then
    -- A pending request is looked at again already.
    if account.recharge_pending == 0 then
      look_again(account, due_at)
    end
    return
  end
  if limits.recharge_mode == RECHARGE_CREDIT
    and account.balance + limits.recharge_amount > BOUND_MICROS then
    return
  end
  account.recharge_number = account.recharge_number + 1
  account.recharge_at = now_seconds
  local identity = recharge_identity(account, account.recharge_number)
  if limits.recharge_mode == RECHARGE_REQUEST then
    request_recharge(events_key, account, identity)
  else
    credit_recharge(bucket_key, ledger_key, events_key, account, identity)
  end
end

--- @seldom
local function raise_alerts(bucket_key, ledger_key, events_key, account)
  local limits = open_limits(account.limits)
  open_account_state(account)
  account.day_mark = alert_spend(events_key, account, "day", account.day_spend,
    limits.daily_limit, account.day_mark)
  account.month_mark = alert_spend(events_key, account, "month", account.month_spend,
    limits.monthly_limit, account.month_mark)
  recharge(bucket_key, ledger_key, events_key, account)
  alert_low(events_key, account)
end

-- Raises every alert and recharge that the accounts' new balances call for.
local function cross_thresholds(bucket_key, ledger_key, events_key, accounts)
  for leg = 1, #accounts do
    local account = accounts[leg]
    local limits = account.limits
    if account.balance - account.used <= limits.quiet_above
      or limits.daily_limit >= 0 or limits.monthly_limit >= 0 then
      raise_alerts(bucket_key, ledger_key, events_key, account)
    end
  end
end
