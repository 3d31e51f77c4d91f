-- How much a leg may hold: credit, daily and monthly spend limits.

-- Returns the room for this leg's whole hold, the credit alone, and the reason if it is too small.
-- `own_hold` is what this call already holds of it.
local function room_of(account, own_hold)
  local limits = account.limits
  local other_holds = account.held - own_hold
  local reason = REASON_INSUFFICIENT_CREDIT
  local room = BOUND_MICROS - other_holds
  if limits.unlimited == 0 then
    room = math.min(room, account.balance - other_holds + limits.credit_limit)
  end
  local credit = room
  if limits.daily_limit >= 0 then
    local rest = limits.daily_limit - account.day_spend - other_holds
    if rest < room then
      room, reason = rest, REASON_DAILY_SPEND_LIMIT
    end
  end
  if limits.monthly_limit >= 0 then
    local rest = limits.monthly_limit - account.month_spend - other_holds
    if rest < room then
      room, reason = rest, REASON_MONTHLY_SPEND_LIMIT
    end
  end
  return room, credit, reason
end

-- Returns the largest step that fits on every charged leg: its seconds and values; or nil.
-- A hold of 0 fits always: a free rate needs no credit.
-- `steps` holds, per step, the seconds and every leg's hold, largest first.
local function largest_step(steps, count, legs, rooms, is_charged)
  local format = ">i4" .. string.rep("i8", legs)
  local position = 1
  for step = 1, count do
    local values = {struct.unpack(format, steps, position)}
    position = values[legs + 2]
    local fits = true
    for leg = 1, legs do
      if is_charged[leg] and values[leg + 1] > 0 and values[leg + 1] > rooms[leg] then
        fits = false
        break
      end
    end
    if fits then
      return values[1], values
    end
  end
  return nil
end
