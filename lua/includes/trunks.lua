-- Flat-rate trunks: counted by direction, not by slot, so that a freed channel is usable at once.

-- Returns how one more call of `direction` would be billed on trunks, or nil when none is free.
local function trunk_billing(account, direction)
  local limits = account.limits
  local inbound, outbound = account.trunks_inbound, account.trunks_outbound
  if direction == DIRECTION_INBOUND then
    inbound = inbound + 1
  else
    outbound = outbound + 1
  end
  local over = math.max(0, inbound - limits.trunks_inbound)
    + math.max(0, outbound - limits.trunks_outbound)
  over = math.max(0, over - limits.trunks_twoway)
  if over == 0 then
    return BILLING_TRUNK
  end
  if limits.trunks_burst < 0 or over <= limits.trunks_burst then
    return BILLING_BURST
  end
  return nil
end

--- @seldom
local function has_trunks(limits)
  return limits.trunks_inbound + limits.trunks_outbound + limits.trunks_twoway > 0
    or limits.trunks_burst ~= 0
end
