-- The common reserve: an open call reports more use, current accounts, no alert due, the full chunk
-- fits every leg. Extends only what the rules in reserve-10.lua extend alike; they decide on all else.
local call = redis.call
repeat
  local record = call("GET", KEYS[1])
  if not record or #record < SIZE_call_head + legs * SIZE_call_leg then
    break
  end
  --- @unpack reserve as request_ from ARGV[1]
  --- @unpack call_head as call_, each call_leg as call_ from record
  --- @unpack i4 as step_seconds, each i8 as step_hold from ARGV[4]
  if call_state ~= STATE_OPEN or call_attempt ~= request_attempt or call_legs ~= legs
    or request_used_seconds <= call_used_seconds or request_denial ~= 0
    or request_second_try == 1 or request_steps ~= 1
    or (step_seconds >= 0 and step_seconds <= call_granted_seconds)
    or now_seconds < request_valid_from or now_seconds >= request_valid_until then
    break
  end

  --- @unpack each i8 as cost from ARGV[2]
  --- @each leg
  local credit_left_leg, state_leg
  do
    local packed = call("HGET", KEYS[6 + leg], "s")
    if not packed then
      break
    end
    --- @unpack account_state as account_ from packed
    --- @unpack limits as limits_ from ARGV[5 + leg]
    if account_version ~= limits_version
      or account_day ~= limits_day or account_month ~= limits_month then
      break
    end

    if call_billing_leg == BILLING_PER_MINUTE then
      local other_holds = account_held - call_held_leg
      local room = BOUND_MICROS - other_holds
      if limits_unlimited == 0 and account_balance - other_holds + limits_credit_limit < room then
        room = account_balance - other_holds + limits_credit_limit
      end
      if limits_daily_limit >= 0
        and limits_daily_limit - account_day_spend - other_holds < room then
        room = limits_daily_limit - account_day_spend - other_holds
      end
      if limits_monthly_limit >= 0
        and limits_monthly_limit - account_month_spend - other_holds < room then
        room = limits_monthly_limit - account_month_spend - other_holds
      end
      if step_hold_leg > 0 and step_hold_leg > room then
        break
      end
      account_used = account_used - call_used_leg + cost_leg
      account_held = other_holds + step_hold_leg
      call_used_leg, call_held_leg, call_room_leg = cost_leg, step_hold_leg, room
    end

    --- @include "leave_if_alert_is_due"
    credit_left_leg = account_balance - account_held + limits_credit_limit
    state_leg = PACKED("account_state as account_")
  end
  --- @end

  local lasting_seconds = request_life_seconds
  if step_seconds >= 0 then
    lasting_seconds = math.max(0, step_seconds - request_used_seconds)
  end
  call_lease_ms = now_ms + (lasting_seconds + request_grace_seconds) * 1000
  call_reported, call_used_seconds = 1, request_used_seconds
  call_granted_seconds, call_final = step_seconds, request_final
  local tail = string.sub(record, SIZE_call_head + legs * SIZE_call_leg + 1)
  call("SET", KEYS[1], PACKED("call_head as call_, each call_leg as call_, text as tail"))
  call("ZADD", KEYS[2], call_lease_ms, ARGV[3])
  --- @each leg
  call("HSET", KEYS[6 + leg], "s", state_leg)
  --- @end
  return ANSWER(REASON_OK, call_granted_seconds, call_final, 0,
    EACH(call_billing_leg, call_held_leg, credit_left_leg))
until true
