-- Purpose: count refused calls of an account, and tell of them at most once a minute.
-- KEYS: 1 hash of the account's denials, 2 events
-- ARGV: 1 event, 2 account, 3 reason, 4 how many more (0: only tell what is counted already),
--   5 numbers' prefixes of these (empty: none)
-- Returns: {seconds after which to ask again}, 0 when nothing is left to be told
-- Emits: call.denied, rate.missing
--- @include "time"

local function tell(total)
  local fields = {"event", ARGV[1], "account", ARGV[2], "at", now_seconds, "count", total}
  if ARGV[1] == "call.denied" then
    fields[#fields + 1] = "reason"
    fields[#fields + 1] = ARGV[3]
  else
    fields[#fields + 1] = "prefixes"
    fields[#fields + 1] = ARGV[5]
  end
  redis.call("XADD", KEYS[2], "*", unpack(fields))
end

local function count()
  local told_field, total_field = ARGV[1] .. ":" .. ARGV[3] .. ":at", ARGV[1] .. ":" .. ARGV[3]
  local known = redis.call("HMGET", KEYS[1], told_field, total_field)
  local total = tonumber(known[2] or 0) + tonumber(ARGV[4])
  local wait_seconds = tonumber(known[1] or 0) + DENIED_EVENT_SECONDS - now_seconds
  if total == 0 then
    return {0}
  end
  -- A clock that was set back must not silence anybody.
  if wait_seconds > 0 and wait_seconds <= DENIED_EVENT_SECONDS then
    redis.call("HSET", KEYS[1], total_field, total)
    redis.call("EXPIRE", KEYS[1], 2 * DENIED_EVENT_SECONDS)
    return {wait_seconds}
  end
  tell(total)
  redis.call("HSET", KEYS[1], told_field, now_seconds, total_field, 0)
  redis.call("EXPIRE", KEYS[1], 2 * DENIED_EVENT_SECONDS)
  return {0}
end

return count()
