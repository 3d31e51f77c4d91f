-- Tombstones of settled calls: hourly hashes, so that old ones go away whole.
--- @include "time"
--- @layout tombstone, tombstone_leg

local function closed_key(prefix, hour)
  return prefix .. string.format("%.0f", hour)
end

-- One bit a call and day tells nearly always that there is no tombstone to look for, hour by hour.
-- Days do not depend on how long tombstones are kept, so that a change of it forgets nothing.
-- An authorize enters its call (and writes LAYOUT_CALL into its record), so that the settle of the
-- same day need not; a settle of another day, or without an authorize, enters it into its own.
local HOURS_OF_DAY = 24

local function filter_key(prefix, hour)
  return prefix .. "filter:" .. string.format("%.0f", math.floor(hour / HOURS_OF_DAY))
end

local function filter_bit(digest)
  return struct.unpack(">I4", digest) % CLOSED_FILTER_BITS
end

local function enter_filter(prefix, digest)
  local filter = filter_key(prefix, math.floor(now_seconds / 3600))
  redis.call("SETBIT", filter, filter_bit(digest), 1)
  return filter
end

local function keep_filter(filter, hours)
  redis.call("EXPIRE", filter, (hours + 2 * HOURS_OF_DAY) * 3600)
end

-- Sees to it that the filter goes in which a call was entered that does not end as most do: the
-- first tombstone of each hour does so only for the filter of that day.
local function expire_filter(prefix, authorized_us, hours)
  keep_filter(filter_key(prefix, math.floor(authorized_us / 3600000000)), hours)
end

--- @seldom
local function look_for_tombstone(prefix, digest, hour, hours)
  for back = 0, hours do
    local packed = redis.call("HGET", closed_key(prefix, hour - back), digest)
    if packed then
      return packed
    end
  end
  return nil
end

-- Returns the packed tombstone of a call settled within the last `hours`, or nil.
local function find_tombstone(prefix, digest, hours)
  local hour, bit = math.floor(now_seconds / 3600), filter_bit(digest)
  local first = math.floor((hour - hours) / HOURS_OF_DAY) * HOURS_OF_DAY
  for past = hour, first, 0 - HOURS_OF_DAY do
    if redis.call("GETBIT", filter_key(prefix, past), bit) == 1 then
      return look_for_tombstone(prefix, digest, hour, hours)
    end
  end
  return nil
end

local function write_tombstone(prefix, digest, seconds, legs, costs, hours)
  local parts = {pack_tombstone({layout = LAYOUT_NUMBER, legs = #legs, seconds = seconds})}
  for leg = 1, #legs do
    parts[leg + 1] = pack_tombstone_leg({billing = legs[leg].billing, cost = costs[leg]})
  end
  local hour = math.floor(now_seconds / 3600)
  local filter = enter_filter(prefix, digest)
  local key = closed_key(prefix, hour)
  redis.call("HSET", key, digest, table.concat(parts))
  if redis.call("HLEN", key) == 1 then
    redis.call("EXPIRE", key, (hours + 2) * 3600)
    keep_filter(filter, hours)
  end
end
