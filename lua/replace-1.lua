-- Purpose: replace a value if it is still what the caller has read.
-- KEYS: 1 value
-- ARGV: 1 SHA-1 of what the caller has read, in hexadecimal (of nothing: of the empty text),
--   2 the new value
-- Returns: 1, or 0 when somebody else has changed it
-- Emits: nothing

local function replace()
  local present = redis.call("GET", KEYS[1]) or ""
  if redis.sha1hex(present) ~= ARGV[1] then
    return 0
  end
  redis.call("SET", KEYS[1], ARGV[2])
  return 1
end

return replace()
