-- Purpose: let a call's lease end soon, because its switch is asked to hang it up: if that never
--   settles it, it becomes an orphan then.
-- KEYS: 1 call, 2 leases
-- ARGV: 1 member of the leases, 2 milliseconds from now at which the lease ends at the latest
-- Returns: {0, end of the lease in milliseconds, name of the switch} or {OUTCOME_UNKNOWN_CALL}
-- Emits: nothing
--- @include "time"
--- @include "calls"

-- The tail begins with three texts, each after its length: number, dialled number, switch.
local function switch_of(tail)
  local position = 1
  for _ = 1, 2 do
    position = position + 1 + string.byte(tail, position)
  end
  return string.sub(tail, position + 1, position + string.byte(tail, position))
end

local function hasten()
  local record = redis.call("GET", KEYS[1])
  if not record then
    return {OUTCOME_UNKNOWN_CALL}
  end
  local head, call_legs, tail = unpack_call(record)
  if head.state ~= STATE_OPEN then
    return {OUTCOME_UNKNOWN_CALL}
  end
  head.lease_ms = math.min(head.lease_ms, now_ms + tonumber(ARGV[2]))
  redis.call("SET", KEYS[1], pack_call(head, call_legs, tail))
  redis.call("ZADD", KEYS[2], head.lease_ms, ARGV[1])
  return {0, head.lease_ms, switch_of(tail)}
end

return hasten()
