-- Purpose: count a call among those of one number, unless the number has as many as it may have.
-- KEYS: 1 the number's calls by the end of their slot, in store milliseconds
-- ARGV: 1 call, 2 greatest number of calls (-1: any), 3 how long the slot is kept in milliseconds;
--   0 gives it up
-- Returns: 1 if the call has a slot now (or has just given it up), 0 if there was none left
-- Emits: nothing
--- @include "time"

local function hold()
  local keep_ms = tonumber(ARGV[3])
  if keep_ms == 0 then
    redis.call("ZREM", KEYS[1], ARGV[1])
    return 1
  end
  redis.call("ZREMRANGEBYSCORE", KEYS[1], "-inf", now_ms)
  local calls_max = tonumber(ARGV[2])
  if not redis.call("ZSCORE", KEYS[1], ARGV[1]) and calls_max >= 0
    and redis.call("ZCARD", KEYS[1]) >= calls_max then
    return 0
  end
  redis.call("ZADD", KEYS[1], now_ms + keep_ms, ARGV[1])
  redis.call("PEXPIRE", KEYS[1], keep_ms)
  return 1
end

return hold()
