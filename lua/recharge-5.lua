-- Purpose: note that a requested recharge has failed, or look whether one is due or has expired
--   of an account that no call comes to.
-- KEYS: 1 account, 2 bucket, 3 ledger, 4 events, 5 reference of the recharge (only for `fail`)
-- ARGV: 1 verb (`fail`, `check`), 2 packed limits, 3 and 4 seconds between which their day and
--   month hold, 5 number of the recharge, 6 why it failed; 5 and 6 only for `fail`
-- Returns: {0}, {OUTCOME_DUPLICATE} when it was known as failed, {OUTCOME_REFERENCE_CONFLICT} when
--   it is credited, {OUTCOME_UNKNOWN_RECHARGE}, {OUTCOME_STALE_CONFIG},
--   {OUTCOME_STALE_TIME, now} or {OUTCOME_ACCOUNT_MISSING, 1}
-- Emits: recharge.*, balance.restored
--- @include "accounts"
--- @include "events"

local function fail(account)
  local number = tonumber(ARGV[5])
  local identity = recharge_identity(account, number)
  local packed = redis.call("HGET", recharges_key(account), identity)
  if not packed then
    if redis.call("EXISTS", KEYS[5]) == 1 then
      return {OUTCOME_REFERENCE_CONFLICT}
    end
    return {OUTCOME_UNKNOWN_RECHARGE}
  end
  local known = unpack_recharge_request(packed)
  if known.state == RECHARGE_FAILED then
    return {OUTCOME_DUPLICATE}
  end
  mark_recharge(account, identity, RECHARGE_FAILED)
  if account.recharge_pending == number then
    account.recharge_pending = 0
    account.recharge_failures = account.recharge_failures + 1
    -- The back-off counts from the failure.
    account.recharge_at = now_seconds
  end
  emit(KEYS[4], "recharge.failed", account, "recharge", identity, "amount", known.amount,
    "detail", ARGV[6])
  recharge(KEYS[2], KEYS[3], KEYS[4], account)
  return {0}
end

local function check(account)
  redis.call("ZREM", string.match(KEYS[1], "^.-}:") .. "recharge_checks", account_name(account))
  expire_recharge(KEYS[4], account)
  recharge(KEYS[2], KEYS[3], KEYS[4], account)
  if account.recharge_pending ~= 0 then
    look_again(account, account.recharge_at + RECHARGE_PENDING_SECONDS)
  end
  return {0}
end

local function run()
  local accounts, stale = load_accounts(1, 1, 2, tonumber(ARGV[3]), tonumber(ARGV[4]))
  if not accounts then
    return stale
  end
  local account = accounts[1]
  open_limits(account.limits)
  open_account_state(account)
  local answer
  if ARGV[1] == "fail" then
    answer = fail(account)
  else
    answer = check(account)
  end
  if answer[1] == 0 then
    store_accounts(accounts)
  end
  return answer
end

return run()
