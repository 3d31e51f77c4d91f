-- Call records and the counters that are derived from them.
--- @layout call_head, call_leg

local COUNTER_OF_CLASS = {
  [CLASS_TOLLFREE] = "calls_tollfree",
  [CLASS_PREMIUM] = "calls_premium",
  [CLASS_CARIBBEAN] = "calls_caribbean",
  [CLASS_NATIONAL] = "calls_national",
  [CLASS_INTERNATIONAL] = "calls_international",
  [CLASS_SATELLITE] = "calls_satellite",
  [CLASS_UNKNOWN] = "calls_unknown",
}

-- Emergency calls count against no limit, so they are in no counter either.
local function is_counted(call_class, direction)
  return call_class ~= CLASS_EMERGENCY or direction ~= DIRECTION_OUTBOUND
end

-- Adds `by` (1 or -1) calls of this kind to the account's counters.
local function count_call(account, call_class, direction, billing, by)
  if is_counted(call_class, direction) then
    account.calls = account.calls + by
    local counter = COUNTER_OF_CLASS[call_class]
    if counter then
      account[counter] = account[counter] + by
    end
  end
  if billing == BILLING_TRUNK or billing == BILLING_BURST then
    if direction == DIRECTION_INBOUND then
      account.trunks_inbound = account.trunks_inbound + by
    else
      account.trunks_outbound = account.trunks_outbound + by
    end
  end
end

-- Returns head, legs and tail of a packed call.
local function unpack_call(record)
  local head = unpack_call_head(record)
  local legs = {}
  local position = SIZE_call_head + 1
  for leg = 1, head.legs do
    local call_leg = unpack_call_leg(record, position)
    legs[leg] = call_leg
    position = position + SIZE_call_leg
  end
  return head, legs, string.sub(record, position)
end

local function pack_call(head, legs, tail)
  local parts = {pack_call_head(head)}
  for leg = 1, head.legs do
    local call_leg = legs[leg]
    parts[leg + 1] = pack_call_leg(call_leg)
  end
  parts[#parts + 1] = tail
  return table.concat(parts)
end

-- Appends billing, held, credit left of every leg to an answer.
local function append_legs(answer, legs, accounts)
  for leg = 1, #legs do
    local account = accounts[leg]
    answer[#answer + 1] = legs[leg].billing
    answer[#answer + 1] = legs[leg].held
    answer[#answer + 1] = account.balance - account.held + account.limits.credit_limit
  end
  return answer
end

-- Returns the end of a lease in milliseconds; before the first report `ring_seconds` counts too.
local function lease_end(head, grace_seconds, life_seconds)
  local seconds = life_seconds
  if head.granted_seconds >= 0 then
    seconds = math.max(0, head.granted_seconds - head.used_seconds)
  end
  if head.reported == 0 then
    seconds = seconds + head.ring_seconds
  end
  return now_ms + (seconds + grace_seconds) * 1000
end
