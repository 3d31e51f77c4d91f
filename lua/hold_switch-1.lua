-- Purpose: take, keep or leave the lease by which one process serves a switch.
-- KEYS: 1 lease of the switch
-- ARGV: 1 the asking process, 2 how long to hold the lease in milliseconds; 0 leaves it
-- Returns: 1 if the process holds the lease now (or has just left it), 0 if another one does
-- Emits: nothing

local function hold()
  local holder = redis.call("GET", KEYS[1])
  if holder and holder ~= ARGV[1] then
    return 0
  end
  if tonumber(ARGV[2]) == 0 then
    redis.call("DEL", KEYS[1])
  else
    redis.call("SET", KEYS[1], ARGV[1], "PX", ARGV[2])
  end
  return 1
end

return hold()
