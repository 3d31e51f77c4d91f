-- Tombstones of settled calls: hourly hashes, so that old ones go away whole.
--- @include "time"
--- @layout tombstone, tombstone_leg

local function closed_key(prefix, hour)
  return prefix .. string.format("%.0f", hour)
end

-- Returns the packed tombstone of a call settled within the last `hours`, or nil.
local function find_tombstone(prefix, digest, hours)
  local hour = math.floor(now_seconds / 3600)
  for back = 0, hours do
    local packed = redis.call("HGET", closed_key(prefix, hour - back), digest)
    if packed then
      return packed
    end
  end
  return nil
end

local function write_tombstone(prefix, digest, seconds, legs, costs, hours)
  local parts = {pack_tombstone({layout = LAYOUT_NUMBER, legs = #legs, seconds = seconds})}
  for leg = 1, #legs do
    parts[leg + 1] = pack_tombstone_leg({billing = legs[leg].billing, cost = costs[leg]})
  end
  local key = closed_key(prefix, math.floor(now_seconds / 3600))
  if redis.call("HSET", key, digest, table.concat(parts)) == 1
    and redis.call("HLEN", key) == 1 then
    redis.call("EXPIRE", key, (hours + 2) * 3600)
  end
end
