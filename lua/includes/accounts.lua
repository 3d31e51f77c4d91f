-- The accounts of a chain: loading, proving current, storing.
--- @include "time"
--- @layout account_state, limits

-- Returns the states of `legs` accounts, leaf first, each with its `limits` and `key`;
-- or nil and the answer to give when one is missing or the caller's knowledge is stale.
local function load_accounts(first_key, legs, first_limits, valid_from, valid_until)
  local accounts = {}
  local stale = false
  for leg = 1, legs do
    local key = KEYS[first_key + leg - 1]
    local packed = redis.call("HGET", key, "s")
    if not packed then
      return nil, {OUTCOME_ACCOUNT_MISSING, leg}
    end
    local account = unpack_account_state(packed)
    local packed_limits = ARGV[first_limits + leg - 1]
    account.limits = unpack_limits(packed_limits)
    account.key = key
    if account.version ~= account.limits.version then
      stale = true
    end
    accounts[leg] = account
  end
  if stale then
    return nil, {OUTCOME_STALE_CONFIG}
  end
  if now_seconds < valid_from or now_seconds >= valid_until then
    return nil, {OUTCOME_STALE_TIME, now_seconds}
  end
  return accounts
end

-- Starts a new day or month of spend when the caller's numbers say that one has begun.
--- @seldom
local function start_period(account)
  local limits = account.limits
  if account.day ~= limits.day then
    open_account_state(account)
    account.day, account.day_spend, account.day_mark = limits.day, 0, 0
  end
  if account.month ~= limits.month then
    open_account_state(account)
    account.month, account.month_spend, account.month_mark = limits.month, 0, 0
  end
end

local function roll_period(account)
  local limits = account.limits
  if account.day ~= limits.day or account.month ~= limits.month then
    start_period(account)
  end
end

local function store_accounts(accounts)
  for leg = 1, #accounts do
    redis.call("HSET", accounts[leg].key, "s", pack_account_state(accounts[leg]))
  end
end

--- @seldom
local function account_name(account)
  return string.match(account.key, ":account:(.*)$")
end
