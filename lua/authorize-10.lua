-- Purpose: decide whether a call may start, hold its money on every leg, remember it.
-- KEYS: 1 call, 2 leases, 3 prefix of the closed hashes, 4 events,
--   5 and 6 filters of the closed hashes of today and the day before, 7..10 accounts, leaf first
--   (as many as there are)
-- ARGV: 1 packed authorize, 2 call digest, 3 member of the leases, 4 request digest,
--   5 tail of the call record (opaque), 6 packed leg_request of every leg, then steps (seconds and
--   every leg's hold, largest first), 7..6+legs packed limits
-- Returns: {0, seconds or -1, final, repeated, now in µs, then billing, held, credit left of every
--   leg}, {reason, leg, now in µs, µs until when a call-rate denial holds}, {OUTCOME_STALE_CONFIG}, {OUTCOME_STALE_TIME, now}, {OUTCOME_ACCOUNT_MISSING, leg}
--   or {OUTCOME_SHORT, reason, leg, 0, then room, credit, billing of every leg}: nothing was changed
-- Emits: trunks.burst, trunks.exhausted
--- @include "time"
--- @shortcut "authorize"
--- @include "accounts"
--- @include "calls"
--- @include "room"
--- @include "trunks"
--- @include "closed"
--- @include "events"
--- @layout authorize, leg_request

local FIRST_ACCOUNT, FIRST_LIMITS = 7, 7
local request = unpack_authorize(ARGV[1])
local legs = request.legs
local steps = string.sub(ARGV[6], legs * SIZE_leg_request + 1)
local counted = is_counted(request.call_class, request.direction)

-- The answer of an open call to the same question; adopts it for this attempt.
--- @seldom
local function repeat_answer(record, accounts)
  local head, call_legs, tail = unpack_call(record)
  if request.dry_run == 0 then
    head.attempt = request.attempt
    redis.call("SET", KEYS[1], pack_call(head, call_legs, tail))
  end
  return append_legs({REASON_OK, head.granted_seconds, head.final, 1, now_us}, call_legs, accounts)
end

-- The reason why a known id may not be authorized again, or nil.
local function id_conflict(record)
  if record then
    local head = unpack_call_head(record)
    if head.state == STATE_ENDED then
      return REASON_CALL_ENDED
    end
    if head.state ~= STATE_OPEN or head.request ~= ARGV[4] then
      return REASON_CALL_ID_CONFLICT
    end
  elseif find_tombstone(KEYS[3], ARGV[2], request.closed_hours) then
    return REASON_CALL_ID_CONFLICT
  end
  return nil
end

-- Calls per second (GCRA with a burst of one second), calls, calls of the class.
local function limit_reached(account)
  local limits = account.limits
  if limits.arrival_interval_us < 0
    or (limits.arrival_interval_us > 0
      and account.arrival_us - now_us > limits.arrival_burst_us) then
    return REASON_CALL_RATE_EXCEEDED
  end
  if limits.calls_max >= 0 and account.calls >= limits.calls_max then
    return REASON_MAX_CALLS_EXCEEDED
  end
  local counter = COUNTER_OF_CLASS[request.call_class]
  if counter and limits.class_calls_max >= 0 and account[counter] >= limits.class_calls_max then
    return REASON_MAX_CLASS_CALLS_EXCEEDED
  end
  return nil
end

-- How one leg pays: its billing, or nil and the reason it cannot.
local function leg_billing(account, leg_request)
  if request.exempt == 1 or leg_request.has_rate >= EXCUSE_PAYMENT then
    return BILLING_FREE
  end
  if leg_request.trunk_covered == 1 then
    local billing = trunk_billing(account, request.direction)
    if billing then
      return billing
    end
  end
  if account.limits.per_minute == 0 then
    return nil, REASON_TRUNKS_EXHAUSTED
  end
  if leg_request.has_rate == 0 then
    return nil, REASON_NO_RATE
  end
  if leg_request.has_rate == 2 then
    return nil, REASON_MAX_CALL_COST
  end
  if request.memory_full == 1 then
    return nil, REASON_STORE_FULL
  end
  return BILLING_PER_MINUTE
end

-- At most one event a minute and account tells that a covered call found no plain trunk.
--- @seldom
local function alert_trunks(account, leg_request, billing)
  if leg_request.trunk_covered == 0 or request.dry_run == 1 or request.exempt == 1 then
    return false
  end
  open_account_state(account)
  if billing == BILLING_BURST and now_seconds - account.burst_event_at >= TRUNKS_EVENT_SECONDS then
    account.burst_event_at = now_seconds
    emit(KEYS[4], "trunks.burst", account, "inbound", account.trunks_inbound,
      "outbound", account.trunks_outbound)
    return true
  end
  if billing ~= BILLING_TRUNK and billing ~= BILLING_BURST and has_trunks(account.limits)
    and now_seconds - account.trunks_event_at >= TRUNKS_EVENT_SECONDS then
    account.trunks_event_at = now_seconds
    emit(KEYS[4], "trunks.exhausted", account, "inbound", account.trunks_inbound,
      "outbound", account.trunks_outbound)
    return true
  end
  return false
end

-- A denial changes no counter; it may leave a trunk alert and the time of it.
--- @seldom
local function deny(reason, leg, account, leg_request)
  if account and leg_request and alert_trunks(account, leg_request, nil) then
    store_accounts({account})
  end
  return {reason, leg, now_us, 0}
end

--- @seldom
local function short(accounts, billings, rooms, credits, reason, leg)
  local answer = {OUTCOME_SHORT, reason, leg, 0}
  for index = 1, #accounts do
    answer[#answer + 1] = rooms[index]
    answer[#answer + 1] = credits[index]
    answer[#answer + 1] = billings[index]
  end
  return answer
end

-- Writes the call and every account's new state; from here on nothing can fail.
local function admit(accounts, leg_requests, billings, rooms, holds, seconds, final)
  local head = {
    layout = LAYOUT_CALL, state = STATE_OPEN, call_class = request.call_class,
    direction = request.direction, legs = legs, final = final,
    reported = request.used_seconds > 0 and 1 or 0,
    marks = request.marks, attempt = request.attempt, request = ARGV[4],
    authorized_us = now_us - request.used_seconds * 1000000,
    ring_seconds = request.ring_seconds, granted_seconds = seconds,
    used_seconds = request.used_seconds, lease_ms = 0,
  }
  head.lease_ms = lease_end(head, request.grace_seconds, request.life_seconds)
  local call_legs = {}
  for leg = 1, legs do
    local account, limits = accounts[leg], accounts[leg].limits
    local is_charged = billings[leg] == BILLING_PER_MINUTE
    local held, used = 0, 0
    if is_charged then
      held, used = holds[leg], leg_requests[leg].used
    end
    if leg_requests[leg].trunk_covered == 1 and billings[leg] ~= BILLING_TRUNK then
      alert_trunks(account, leg_requests[leg], billings[leg])
    end
    account.held = account.held + held
    account.used = account.used + used
    count_call(account, request.call_class, request.direction, billings[leg], 1)
    if counted and leg_requests[leg].has_rate ~= EXCUSE_LIMITS
      and limits.arrival_interval_us > 0 then
      account.arrival_us = math.max(account.arrival_us, now_us) + limits.arrival_interval_us
    end
    call_legs[leg] = {billing = billings[leg], held = held, used = used, charged = 0,
      room = rooms[leg]}
  end
  if request.dry_run == 0 then
    local filter = enter_filter(KEYS[3], ARGV[2])
    if request.used_seconds > 0 then
      -- The end of an adopted call lets go only of the filter of the day on which it began.
      keep_filter(filter, request.closed_hours)
    end
    redis.call("SET", KEYS[1], pack_call(head, call_legs, ARGV[5]))
    redis.call("ZADD", KEYS[2], head.lease_ms, ARGV[3])
    store_accounts(accounts)
  end
  return append_legs({REASON_OK, seconds, final, 0, now_us}, call_legs, accounts)
end

-- Finds the leg that even the last step does not fit, and why; or answers short.
--- @seldom
local function refuse(accounts, leg_requests, billings, is_charged, rooms, credits, reasons)
  local smallest = {struct.unpack(">i4" .. string.rep("i8", legs), steps,
    (request.steps - 1) * (4 + 8 * legs) + 1)}
  local short_leg
  for leg = 1, legs do
    if is_charged[leg] and not short_leg and smallest[leg + 1] > 0
      and smallest[leg + 1] > rooms[leg] then
      short_leg = leg
    end
  end
  short_leg = short_leg or 1
  if request.second_try == 0 then
    return short(accounts, billings, rooms, credits, reasons[short_leg], short_leg)
  end
  return deny(reasons[short_leg], short_leg, accounts[short_leg], leg_requests[short_leg])
end

local function decide()
  local record = redis.call("GET", KEYS[1])
  local reason = id_conflict(record)
  if reason then
    return {reason, 1, now_us, 0}
  end
  local accounts, stale = load_accounts(FIRST_ACCOUNT, legs, FIRST_LIMITS,
    request.valid_from, request.valid_until)
  if not accounts then
    return stale
  end
  if record then
    return repeat_answer(record, accounts)
  end
  local leg_requests, billings, is_charged = {}, {}, {}
  local rooms, credits, reasons = {}, {}, {}
  local is_limited = false
  for leg = 1, legs do
    local position = (leg - 1) * SIZE_leg_request + 1
    local leg_request = unpack_leg_request(ARGV[6], position)
    leg_requests[leg] = leg_request
    roll_period(accounts[leg])
    reason = counted and leg_request.has_rate ~= EXCUSE_LIMITS and limit_reached(accounts[leg])
    if reason then
      local account = accounts[leg]
      return {reason, leg, now_us, account.arrival_us - account.limits.arrival_burst_us}
    end
  end
  for leg = 1, legs do
    billings[leg], reason = leg_billing(accounts[leg], leg_requests[leg])
    if not billings[leg] then
      return deny(reason, leg, accounts[leg], leg_requests[leg])
    end
    is_charged[leg] = billings[leg] == BILLING_PER_MINUTE
    is_limited = is_limited or (is_charged[leg] and leg_requests[leg].limiting == 1)
  end
  for leg = 1, legs do
    rooms[leg], credits[leg], reasons[leg] = room_of(accounts[leg], 0)
    if is_charged[leg] and leg_requests[leg].needs_credit == 1 and credits[leg] <= 0 then
      return deny(REASON_INSUFFICIENT_CREDIT, leg, accounts[leg], leg_requests[leg])
    end
  end
  local seconds, holds = largest_step(steps, request.steps, legs, rooms, is_charged)
  if not seconds then
    return refuse(accounts, leg_requests, billings, is_charged, rooms, credits, reasons)
  end
  table.remove(holds, 1)
  local final = request.final
  if not is_limited then
    seconds = request.uncharged_seconds
    final = seconds >= 0 and 1 or 0
  elseif request.second_try == 1 then
    final = 1
  end
  return admit(accounts, leg_requests, billings, rooms, holds, seconds, final)
end

return decide()
