-- Purpose: create an account, replace its configuration, or close it; never its balance.
-- KEYS: 1 account, 2 bucket, 3 children of its parent (the account itself for a root),
--   4 children of its own
-- ARGV: 1 verb (`put`, `close`), 2 configuration (opaque), 3 version the caller has read
--   (0: must not exist, -1: whatever it is), 4 account id
-- Returns: {0, new version, created}, {OUTCOME_STALE_CONFIG, version}, {OUTCOME_ACCOUNT_MISSING}
--   when it never existed or is closed, {OUTCOME_NOT_EMPTY, calls, balance, children}
-- Emits: nothing
--- @include "accounts"

local function fresh_state()
  return unpack_account_state(string.rep("\0", SIZE_account_state))
end

local function put(state, expected)
  local created = 0
  if not state then
    if redis.call("HEXISTS", KEYS[1], "closed") == 1 then
      return {OUTCOME_ACCOUNT_MISSING}
    end
    if expected > 0 then
      return {OUTCOME_ACCOUNT_MISSING}
    end
    state = fresh_state()
    state.layout = LAYOUT_NUMBER
    created = 1
  elseif expected >= 0 and state.version ~= expected then
    return {OUTCOME_STALE_CONFIG, state.version}
  end
  state.version = redis.call("HINCRBY", KEYS[2], "version", 1)
  redis.call("HSET", KEYS[1], "s", pack_account_state(state), "c", ARGV[2])
  if KEYS[3] ~= KEYS[1] then
    redis.call("SADD", KEYS[3], ARGV[4])
  end
  return {0, state.version, created}
end

local function close(state, expected)
  if not state then
    return {OUTCOME_ACCOUNT_MISSING}
  end
  if expected >= 0 and state.version ~= expected then
    return {OUTCOME_STALE_CONFIG, state.version}
  end
  local children = redis.call("SCARD", KEYS[4])
  if state.calls ~= 0 or state.held ~= 0 or state.balance ~= 0 or children ~= 0 then
    return {OUTCOME_NOT_EMPTY, state.calls, state.balance, children}
  end
  redis.call("HSET", KEYS[1], "closed", now_seconds)
  redis.call("HDEL", KEYS[1], "s", "c")
  if KEYS[3] ~= KEYS[1] then
    redis.call("SREM", KEYS[3], ARGV[4])
  end
  return {0, 0, 0}
end

local packed = redis.call("HGET", KEYS[1], "s")
local state = packed and unpack_account_state(packed)
local expected = tonumber(ARGV[3])
if ARGV[1] == "close" then
  return close(state, expected)
end
return put(state, expected)
