-- The common settle: an open call that this daemon knows, current accounts, no alert due. Books only
-- what the rules in settle-11.lua book alike; they decide on all else.
local call = redis.call
repeat
  local record = call("GET", KEYS[1])
  if not record or #record < SIZE_call_head + legs * SIZE_call_leg then
    break
  end
  --- @unpack settle as request_, each i8 as cost from ARGV[1]
  --- @unpack call_head as call_, each call_leg as call_ from record
  if call_layout ~= LAYOUT_CALL or call_state ~= STATE_OPEN or call_attempt ~= request_attempt or call_legs ~= legs
    or (call_granted_seconds >= 0 and request_seconds > call_granted_seconds)
    or now_seconds < request_valid_from or now_seconds >= request_valid_until
    or now_seconds - now_seconds % 3600 ~= request_hour * 3600
    -- One that was authorized today is in the filter already.
    or call_authorized_us < (request_hour - request_hour % 24) * 3600000000
    or call_authorized_us > now_us
    -- The first tombstone of an hour also says when its hash may go.
    or call("HLEN", KEYS[7]) == 0 then
    break
  end

  --- @counter of call_call_class
  --- @each leg
  local entry_billing_leg, tombstone_billing_leg = call_billing_leg, call_billing_leg
  local entry_amount_leg, tombstone_cost_leg = call_charged_leg - cost_leg, cost_leg
  local entry_sequence_leg, entry_balance_leg, state_leg
  do
    local packed = call("HGET", KEYS[7 + leg], "s")
    if not packed then
      break
    end
    --- @unpack account_state as account_ from packed
    --- @unpack limits as limits_ from ARGV[4 + leg]
    if account_version ~= limits_version
      or account_day ~= limits_day or account_month ~= limits_month then
      break
    end

    account_held = account_held - call_held_leg
    account_used = account_used - call_used_leg
    account_calls = account_calls - 1
    if counter_is_first then
      account_counters_first = account_counters_first - 1
    else
      account_counters_second = account_counters_second - 1
    end
    if call_billing_leg == BILLING_TRUNK or call_billing_leg == BILLING_BURST then
      -- The trunks of a leg that pays by the minute stay packed, before eight bytes of another.
      local packed_calls = account_packed_counters_third
      local place = #packed_calls - (call_direction == DIRECTION_INBOUND and 24 or 16)
      local trunks = struct.unpack(">i8", packed_calls, place + 1)
      account_packed_counters_third = string.sub(packed_calls, 1, place)
        .. struct.pack(">i8", trunks - 1) .. string.sub(packed_calls, place + 9)
    end

    account_day_spend = account_day_spend - entry_amount_leg
    account_month_spend = account_month_spend - entry_amount_leg
    account_balance = account_balance + entry_amount_leg
    account_sequence = account_sequence + 1
    --- @include "leave_if_alert_is_due"
    entry_sequence_leg, entry_balance_leg = account_sequence, account_balance
    state_leg = PACKED("account_state as account_")
  end
  --- @end

  -- The first write frees memory: a settle passes also when the store is full.
  call("DEL", KEYS[1])
  call("ZREM", KEYS[2], ARGV[3])
  local tombstone_layout, tombstone_legs, tombstone_seconds = LAYOUT_NUMBER, legs, request_seconds
  call("HSET", KEYS[7], ARGV[2],
    PACKED("tombstone as tombstone_, each tombstone_leg as tombstone_"))
  local entry_layout, entry_kind, entry_marks = LAYOUT_NUMBER, KIND_CALL, call_marks
  local entry_call_class, entry_direction = call_call_class, call_direction
  local entry_legs, entry_seconds, entry_started_at = legs, request_seconds, request_started_at
  local entry_sequence = call("HINCRBY", KEYS[4], "sequence", 1)
  local strings = ARGV[4]
  call("XADD", KEYS[5], "*", "e",
    PACKED("ledger_head as entry_, each ledger_leg as entry_, text as strings"))
  --- @each leg
  call("HSET", KEYS[7 + leg], "s", state_leg)
  --- @end
  return ANSWER(REASON_OK, request_seconds, 0, entry_sequence,
    EACH(call_billing_leg, cost_leg, entry_balance_leg))
until true
