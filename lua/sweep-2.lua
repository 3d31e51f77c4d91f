-- Purpose: stamp a bucket as swept and name the calls whose lease has run out. After any doubt
--   (nobody swept for a while, another server process, a clock that jumped) nothing is due until
--   every live call has had time to be heard of; where none is live, there is nothing to doubt.
-- KEYS: 1 leases, 2 bucket
-- ARGV: 1 run id of the store, 2 longest age of a good stamp in seconds, 3 seconds to wait after a
--   doubt, 4 whether the sweeper saw the clock jump, 5 most members to name
-- Returns: {now in seconds, seconds still to wait, member, ...}
-- Emits: nothing
--- @include "time"

local function sweep()
  local stamp = redis.call("HMGET", KEYS[2], "swept_at", "swept_run", "orphans_from")
  local swept_at = tonumber(stamp[1] or 0)
  local orphans_from = tonumber(stamp[3] or 0)
  if now_seconds - swept_at > tonumber(ARGV[2]) or stamp[2] ~= ARGV[1] or ARGV[4] == "1" then
    orphans_from = 0
    if redis.call("ZCARD", KEYS[1]) > 0 then
      orphans_from = now_seconds + tonumber(ARGV[3])
    end
  end
  redis.call("HSET", KEYS[2], "swept_at", now_seconds, "swept_run", ARGV[1],
    "orphans_from", orphans_from)
  if now_seconds < orphans_from then
    return {now_seconds, orphans_from - now_seconds}
  end
  local due = redis.call("ZRANGEBYSCORE", KEYS[1], 0, now_ms, "LIMIT", 0, ARGV[5])
  return {now_seconds, 0, unpack(due)}
end

return sweep()
