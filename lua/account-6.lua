-- Purpose: create an account, replace its configuration, or close it; never its balance.
-- KEYS: 1 account, 2 bucket, 3 children of its parent (of the bucket, for a root account),
--   4 children of its own, 5 its parent (the account itself, for a root account), 6 events
-- ARGV: 1 verb (`put`, `close`), 2 configuration (opaque), 3 version the caller has read
--   (0: must not exist, -1: whatever it is), 4 account id, 5 packed limits; 2, 3, 5 only for `put`
-- Returns: {0, new version, created}, {OUTCOME_STALE_CONFIG, version},
--   {OUTCOME_ACCOUNT_MISSING, 1} when it never existed or is closed, {OUTCOME_ACCOUNT_MISSING, 2}
--   when its parent is, or {OUTCOME_NOT_EMPTY, calls, balance, children}
-- Emits: balance.restored
--- @include "events"

local function create()
  if redis.call("HEXISTS", KEYS[1], "closed") == 1 then
    return nil, {OUTCOME_ACCOUNT_MISSING, 1}
  end
  if KEYS[5] ~= KEYS[1] and redis.call("HEXISTS", KEYS[5], "s") == 0 then
    return nil, {OUTCOME_ACCOUNT_MISSING, 2}
  end
  local blank = string.rep("\0", SIZE_account_state)
  local state = unpack_account_state(blank)
  state.layout = LAYOUT_NUMBER
  return state
end

-- An alert whose limit the new configuration has moved out of reach may be raised again.
local function rearm_all(state)
  local packed_limits = ARGV[5]
  local limits = unpack_limits(packed_limits)
  state.limits, state.key = limits, KEYS[1]
  open_account_state(state)
  rearm(KEYS[6], state)
  if state.day == limits.day then
    state.day_mark = spend_mark(state.day_spend, limits.daily_limit, state.day_mark)
  end
  if state.month == limits.month then
    state.month_mark = spend_mark(state.month_spend, limits.monthly_limit, state.month_mark)
  end
end

-- Has the sweeper ask for what the new configuration wants: an account that is below the threshold
-- already may have no call that would.
local function look_after_recharge(state)
  local limits = state.limits
  if limits.recharge_mode ~= RECHARGE_NONE
    and effective_balance(state) < limits.recharge_threshold then
    look_again(state, now_seconds)
  end
end

local function put(state, expected)
  local created, refused = 0, nil
  if state then
    if expected >= 0 and state.version ~= expected then
      return {OUTCOME_STALE_CONFIG, state.version}
    end
  elseif expected > 0 then
    return {OUTCOME_ACCOUNT_MISSING, 1}
  else
    state, refused = create()
    if not state then
      return refused
    end
    created = 1
  end
  rearm_all(state)
  if created == 0 then
    look_after_recharge(state)
  end
  state.version = redis.call("HINCRBY", KEYS[2], "version", 1)
  redis.call("HSET", KEYS[1], "s", pack_account_state(state), "c", ARGV[2])
  redis.call("ZADD", KEYS[3], 0, ARGV[4])
  return {0, state.version, created}
end

local function close(state)
  if not state then
    return {OUTCOME_ACCOUNT_MISSING, 1}
  end
  local children = redis.call("ZCARD", KEYS[4])
  if state.calls ~= 0 or state.held ~= 0 or state.balance ~= 0 or children ~= 0 then
    return {OUTCOME_NOT_EMPTY, state.calls, state.balance, children}
  end
  redis.call("HSET", KEYS[1], "closed", now_seconds)
  -- The configuration stays: the account's history is read in its zone and currency.
  redis.call("HDEL", KEYS[1], "s")
  redis.call("ZREM", KEYS[3], ARGV[4])
  return {0, 0, 0}
end

local function run()
  local packed = redis.call("HGET", KEYS[1], "s")
  local state = packed and unpack_account_state(packed)
  if ARGV[1] == "close" then
    return close(state)
  end
  return put(state, tonumber(ARGV[3]))
end

return run()
