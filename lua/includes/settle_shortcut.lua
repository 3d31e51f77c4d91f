-- The common settle: an open call that this daemon knows, current accounts, no alert due. Books only
-- what the rules in settle-12.lua book alike; they decide on all else.
local call = redis.call
repeat
  local record = call("GET", KEYS[1])
  if not record or #record < SIZE_call_head + legs * SIZE_call_leg then
    break
  end
  --- @unpack settle as request_ from ARGV[1]
  --- @unpack call_head as call_, each call_leg as call_ from record
  if call_state ~= STATE_OPEN or call_attempt ~= request_attempt or call_legs ~= legs
    or (call_granted_seconds >= 0 and request_seconds > call_granted_seconds)
    or now_seconds < request_valid_from or now_seconds >= request_valid_until
    or now_seconds - now_seconds % 3600 ~= request_hour * 3600
    -- The first tombstone of an hour also says when its hash may go.
    or call("HLEN", KEYS[7]) == 0 then
    break
  end

  --- @unpack each i8 as cost from ARGV[4]
  --- @each leg
  local entry_billing_leg, tombstone_billing_leg = call_billing_leg, call_billing_leg
  local entry_amount_leg, tombstone_cost_leg = call_charged_leg - cost_leg, cost_leg
  local entry_sequence_leg, entry_balance_leg, state_leg
  do
    local packed = call("HGET", KEYS[8 + leg], "s")
    if not packed then
      break
    end
    --- @unpack account_state as account_ from packed
    --- @unpack limits as limits_ from ARGV[5 + leg]
    if account_version ~= limits_version
      or account_day ~= limits_day or account_month ~= limits_month then
      break
    end

    account_held = account_held - call_held_leg
    account_used = account_used - call_used_leg
    account_calls = account_calls - 1
    if call_call_class == CLASS_NATIONAL then
      account_calls_national = account_calls_national - 1
    elseif call_call_class == CLASS_INTERNATIONAL then
      account_calls_international = account_calls_international - 1
    elseif call_call_class == CLASS_TOLLFREE then
      account_calls_tollfree = account_calls_tollfree - 1
    else
      break
    end
    if call_billing_leg == BILLING_TRUNK or call_billing_leg == BILLING_BURST then
      if call_direction == DIRECTION_INBOUND then
        account_trunks_inbound = account_trunks_inbound - 1
      else
        account_trunks_outbound = account_trunks_outbound - 1
      end
    end

    account_day_spend = account_day_spend - entry_amount_leg
    account_month_spend = account_month_spend - entry_amount_leg
    account_balance = account_balance + entry_amount_leg
    account_sequence = account_sequence + 1
    if account_balance - account_used <= limits_quiet_above
      or (limits_daily_limit >= 0 and account_day_mark < 2
        and account_day_spend * 100 >= limits_daily_limit * SPEND_WARNING_PERCENT
        and (account_day_mark < 1 or account_day_spend >= limits_daily_limit))
      or (limits_monthly_limit >= 0 and account_month_mark < 2
        and account_month_spend * 100 >= limits_monthly_limit * SPEND_WARNING_PERCENT
        and (account_month_mark < 1 or account_month_spend >= limits_monthly_limit)) then
      break
    end
    entry_sequence_leg, entry_balance_leg = account_sequence, account_balance
    state_leg = PACKED("account_state as account_")
  end
  --- @end

  -- The first write frees memory: a settle passes also when the store is full.
  call("DEL", KEYS[1])
  call("ZREM", KEYS[2], ARGV[3])
  call("SETBIT", KEYS[8], struct.unpack(">I4", ARGV[2]) % CLOSED_FILTER_BITS, 1)
  local tombstone_layout, tombstone_legs, tombstone_seconds = LAYOUT_NUMBER, legs, request_seconds
  call("HSET", KEYS[7], ARGV[2],
    PACKED("tombstone as tombstone_, each tombstone_leg as tombstone_"))
  local entry_layout, entry_kind, entry_marks = LAYOUT_NUMBER, KIND_CALL, call_marks
  local entry_call_class, entry_direction = call_call_class, call_direction
  local entry_legs, entry_seconds, entry_started_at = legs, request_seconds, request_started_at
  local entry_sequence = call("HINCRBY", KEYS[4], "sequence", 1)
  local strings = ARGV[5]
  call("XADD", KEYS[5], "*", "e",
    PACKED("ledger_head as entry_, each ledger_leg as entry_, text as strings"))
  --- @each leg
  call("HSET", KEYS[8 + leg], "s", state_leg)
  --- @end
  return {REASON_OK, request_seconds, 0, entry_sequence,
    EACH(call_billing_leg, cost_leg, entry_balance_leg)}
until true
