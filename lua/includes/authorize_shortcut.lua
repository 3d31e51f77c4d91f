-- The common authorize: a new call, current accounts, nothing in the way, the full chunk fits every
-- leg. Admits only what the rules in authorize-10.lua admit alike; they decide on all else.
local call = redis.call
repeat
  --- @unpack authorize as request_ from ARGV[1]
  if request_legs ~= legs or request_second_try == 1 or request_steps ~= 1
    or request_dry_run == 1 or request_memory_full == 1 or request_used_seconds ~= 0
    or request_call_class == CLASS_EMERGENCY
    or now_seconds < request_valid_from or now_seconds >= request_valid_until
    or now_seconds - now_seconds % 3600 ~= request_hour * 3600 then
    break
  end

  local bit = struct.unpack(">I4", ARGV[2]) % CLOSED_FILTER_BITS
  local is_used = call("GETBIT", KEYS[6], bit) == 1
  if request_closed_hours > 24 then
    for hour = request_hour - 48, request_hour - request_closed_hours - 23, -24 do
      local day = string.format("filter:%.0f", math.floor(hour / 24))
      is_used = is_used or call("GETBIT", KEYS[3] .. day, bit) == 1
    end
  end
  if is_used then
    break
  end

  --- @counter of request_call_class
  local is_inbound = request_direction == DIRECTION_INBOUND and 1 or 0
  local is_limited = false
  --- @unpack each leg_request as wanted_, i4 as step_seconds, each i8 as step_hold from ARGV[6]
  --- @each leg
  local call_billing_leg = BILLING_PER_MINUTE
  local call_held_leg, call_used_leg, call_charged_leg = 0, 0, 0
  local call_room_leg, credit_left_leg, state_leg
  do
    local packed = call("HGET", KEYS[6 + leg], "s")
    if not packed then
      break
    end
    --- @unpack account_state as account_ from packed
    --- @unpack limits as limits_ from ARGV[6 + leg]
    if account_version ~= limits_version
      or account_day ~= limits_day or account_month ~= limits_month then
      break
    end

    if limits_arrival_interval_us ~= 0 then
      if limits_arrival_interval_us < 0
        or account_arrival_us - now_us > limits_arrival_burst_us then
        break
      end
      if account_arrival_us < now_us then
        account_arrival_us = now_us
      end
      account_arrival_us = account_arrival_us + limits_arrival_interval_us
    end
    local class_calls
    if counter_is_first then
      class_calls = account_counters_first
      account_counters_first = class_calls + 1
    else
      class_calls = account_counters_second
      account_counters_second = class_calls + 1
    end
    if (limits_calls_max >= 0 and account_calls >= limits_calls_max)
      or (limits_class_calls_max >= 0 and class_calls >= limits_class_calls_max) then
      break
    end
    account_calls = account_calls + 1

    if request_exempt == 1 then
      if wanted_has_rate_leg >= EXCUSE_PAYMENT then
        break
      end
      call_billing_leg = BILLING_FREE
    elseif wanted_trunk_covered_leg == 1 then
      local inbound = account_trunks_inbound + is_inbound
      local outbound = account_trunks_outbound + 1 - is_inbound
      local over = 0 - limits_trunks_twoway
      if inbound > limits_trunks_inbound then
        over = over + inbound - limits_trunks_inbound
      end
      if outbound > limits_trunks_outbound then
        over = over + outbound - limits_trunks_outbound
      end
      if over <= 0 then
        call_billing_leg = BILLING_TRUNK
        account_trunks_inbound, account_trunks_outbound = inbound, outbound
      elseif limits_trunks_burst < 0 or over <= limits_trunks_burst
        or now_seconds - account_trunks_event_at >= TRUNKS_EVENT_SECONDS then
        break
      end
    end
    if call_billing_leg == BILLING_PER_MINUTE
      and (limits_per_minute == 0 or wanted_has_rate_leg ~= 1) then
      break
    end

    local room = BOUND_MICROS - account_held
    if limits_unlimited == 0 and account_balance - account_held + limits_credit_limit < room then
      room = account_balance - account_held + limits_credit_limit
    end
    if call_billing_leg == BILLING_PER_MINUTE and wanted_needs_credit_leg == 1 and room <= 0 then
      break
    end
    if limits_daily_limit >= 0
      and limits_daily_limit - account_day_spend - account_held < room then
      room = limits_daily_limit - account_day_spend - account_held
    end
    if limits_monthly_limit >= 0
      and limits_monthly_limit - account_month_spend - account_held < room then
      room = limits_monthly_limit - account_month_spend - account_held
    end
    if call_billing_leg == BILLING_PER_MINUTE then
      if step_hold_leg > 0 and step_hold_leg > room then
        break
      end
      is_limited = is_limited or wanted_limiting_leg == 1
      call_held_leg = step_hold_leg
      account_held = account_held + step_hold_leg
    end
    call_room_leg = room
    credit_left_leg = account_balance - account_held + limits_credit_limit
    state_leg = PACKED("account_state as account_")
  end
  --- @end

  local call_layout, call_state, call_legs = LAYOUT_CALL, STATE_OPEN, legs
  local call_call_class, call_direction = request_call_class, request_direction
  local call_marks, call_attempt, call_request = request_marks, request_attempt, ARGV[4]
  local call_authorized_us, call_ring_seconds = now_us, request_ring_seconds
  local call_reported, call_used_seconds = 0, 0
  local call_granted_seconds, call_final = step_seconds, request_final
  if not is_limited then
    call_granted_seconds = request_uncharged_seconds
    call_final = call_granted_seconds >= 0 and 1 or 0
  end
  local lasting_seconds = call_granted_seconds >= 0 and call_granted_seconds
    or request_life_seconds
  local call_lease_ms = now_ms
    + (lasting_seconds + request_ring_seconds + request_grace_seconds) * 1000

  -- The first write, and at once the proof that the id has not been used today.
  if call("SETBIT", KEYS[5], bit, 1) == 1 then
    break
  end
  -- The second one proves that the call is new also if it began before today.
  local tail = ARGV[5]
  if not call("SET", KEYS[1],
    PACKED("call_head as call_, each call_leg as call_, text as tail"), "NX") then
    call("SETBIT", KEYS[5], bit, 0)
    -- No end of a call lets go of a filter that perhaps only this has made.
    call("EXPIRE", KEYS[5], (request_closed_hours + 48) * 3600)
    break
  end
  call("ZADD", KEYS[2], call_lease_ms, ARGV[3])
  --- @each leg
  call("HSET", KEYS[6 + leg], "s", state_leg)
  --- @end
  return ANSWER(REASON_OK, call_granted_seconds, call_final, 0, now_us,
    EACH(call_billing_leg, call_held_leg, credit_left_leg))
until true
