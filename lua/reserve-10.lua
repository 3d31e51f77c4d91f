-- Purpose: record the use of a running call and hold more money for it; reopen an orphan.
-- KEYS: 1 call, 2 leases, 3 unused, 4 bucket, 5 ledger, 6 events,
--   7..10 accounts, leaf first (as many as there are)
-- ARGV: 1 packed reserve (`denial`: a reason the caller found, which only records the use),
--   2 costs of the use of every leg, 3 member of the leases, 4 steps (seconds and every leg's
--   hold, largest first), 5 strings of a ledger entry (opaque), 6..5+legs packed limits
-- Returns: {0, seconds or -1, final, unchanged, then billing, held, credit left of every leg},
--   {reason, leg}, {OUTCOME_SHORT, reason, leg, granted, then room, credit, billing of
--   every leg},
--   {OUTCOME_UNKNOWN_CALL}, {OUTCOME_STALE_CALL, record}, {OUTCOME_STALE_CONFIG},
--   {OUTCOME_STALE_TIME, now} or {OUTCOME_ACCOUNT_MISSING, leg}
-- Emits: balance.*, spend_limit.*, recharge.*
--- @include "time"
--- @shortcut "reserve"
--- @include "settlement"
--- @include "room"
--- @layout reserve

local request = unpack_reserve(ARGV[1])

-- An orphan's charge is reversed, and what it gave back when it was claimed is taken again.
--- @seldom
local function reopen(accounts, head, call_legs)
  local costs = {}
  for leg = 1, head.legs do
    local account, call_leg = accounts[leg], call_legs[leg]
    costs[leg] = 0
    account.held = account.held + call_leg.held
    account.used = account.used + call_leg.used
    count_call(account, head.call_class, head.direction, call_leg.billing, 1)
  end
  local movements = charge_legs(accounts, call_legs, costs)
  for leg = 1, head.legs do
    call_legs[leg].charged = 0
  end
  head.state = STATE_OPEN
  if math.floor(head.marks / MARK_REOPENED) % 2 == 0 then
    head.marks = head.marks + MARK_REOPENED
  end
  return movements
end

-- Books the reversal of a reopened orphan, then writes call, lease and accounts.
local function write(accounts, head, call_legs, tail, reversal)
  if reversal then
    append_entry(KEYS[4], KEYS[5], accounts,
      {kind = KIND_CALL, marks = MARK_PROVISIONAL + MARK_CORRECTION,
        call_class = head.call_class, direction = head.direction, seconds = 0,
        started_at = math.floor(head.authorized_us / 1000000)}, reversal, ARGV[5])
  end
  head.lease_ms = lease_end(head, request.grace_seconds, request.life_seconds)
  cross_thresholds(KEYS[4], KEYS[5], KEYS[6], accounts)
  redis.call("SET", KEYS[1], pack_call(head, call_legs, tail))
  redis.call("ZADD", KEYS[2], head.lease_ms, ARGV[3])
  store_accounts(accounts)
end

-- Takes the reported use into the call and the accounts; use never becomes less.
local function record_use(accounts, head, call_legs)
  if request.used_seconds <= head.used_seconds then
    return
  end
  local costs = unpack_amounts(ARGV[2], head.legs)
  for leg = 1, head.legs do
    local call_leg = call_legs[leg]
    if call_leg.billing == BILLING_PER_MINUTE then
      accounts[leg].used = accounts[leg].used - call_leg.used + costs[leg]
      call_leg.used = costs[leg]
    end
  end
  head.used_seconds = request.used_seconds
  head.reported = 1
end

local function answer_grant(accounts, head, call_legs, unchanged)
  return append_legs({REASON_OK, head.granted_seconds, head.final, unchanged}, call_legs, accounts)
end

-- Room of every leg for its whole hold, why it may be short, and the first leg that is.
local function measure_room(accounts, call_legs)
  local rooms, credits, reasons, is_charged = {}, {}, {}, {}
  local shortest = 1
  for leg = 1, #call_legs do
    rooms[leg], credits[leg], reasons[leg] = room_of(accounts[leg], call_legs[leg].held)
    is_charged[leg] = call_legs[leg].billing == BILLING_PER_MINUTE
    if is_charged[leg] and (not is_charged[shortest] or rooms[leg] < rooms[shortest]) then
      shortest = leg
    end
  end
  return rooms, credits, reasons, is_charged, shortest
end

-- Whether the reason that the caller found ends the call. A cap that was lowered below what is
-- granted already ends it only there.
local function is_denied(head)
  return request.denial ~= 0 and (request.denial == REASON_ACCOUNT_DISABLED
    or head.state ~= STATE_OPEN or head.granted_seconds < 0
    or request.used_seconds >= head.granted_seconds)
end

-- A report of no new use is a sign of life: only the lease moves. A call that was denied more is
-- denied it again.
local function renew(accounts, head, call_legs, tail)
  head.lease_ms = lease_end(head, request.grace_seconds, request.life_seconds)
  redis.call("SET", KEYS[1], pack_call(head, call_legs, tail))
  redis.call("ZADD", KEYS[2], head.lease_ms, ARGV[3])
  if is_denied(head) then
    return {request.denial, 1}
  end
  if head.granted_seconds >= 0 and head.used_seconds >= head.granted_seconds then
    local _, _, reasons, _, shortest = measure_room(accounts, call_legs)
    return {reasons[shortest], shortest}
  end
  return answer_grant(accounts, head, call_legs, 1)
end

local function hold_more(accounts, call_legs, values, rooms, is_charged)
  for leg = 1, #call_legs do
    if is_charged[leg] then
      local call_leg = call_legs[leg]
      accounts[leg].held = accounts[leg].held - call_leg.held + values[leg + 1]
      call_leg.held = values[leg + 1]
      call_leg.room = rooms[leg]
    end
  end
end

--- @seldom
local function short(reason, leg, head, call_legs, rooms, credits)
  local answer = {OUTCOME_SHORT, reason, leg, head.granted_seconds}
  for index = 1, #call_legs do
    answer[#answer + 1] = rooms[index]
    answer[#answer + 1] = credits[index]
    answer[#answer + 1] = call_legs[index].billing
  end
  return answer
end

-- Whether the hold that an orphan had fits once more.
local function fits_again(call_legs, rooms, is_charged)
  for leg = 1, #call_legs do
    if is_charged[leg] and call_legs[leg].held > 0 and call_legs[leg].held > rooms[leg] then
      return false
    end
  end
  return true
end

-- Extends the grant by the largest step that fits; without one the old grant becomes final.
-- An orphan comes back with its old grant at the least, or not at all.
local function extend(accounts, head, call_legs, tail)
  local was_orphan, granted = head.state == STATE_ORPHAN, head.granted_seconds
  local is_spent = granted >= 0 and request.used_seconds >= granted
  local reversal
  if was_orphan then
    reversal = reopen(accounts, head, call_legs)
  end
  record_use(accounts, head, call_legs)
  local rooms, credits, reasons, is_charged, shortest = measure_room(accounts, call_legs)
  local seconds, values = largest_step(ARGV[4], request.steps, head.legs, rooms, is_charged)
  if not seconds and request.second_try == 0 then
    return short(reasons[shortest], shortest, head, call_legs, rooms, credits)
  end
  local adds = seconds and (seconds < 0 or seconds > granted)
  if was_orphan and not adds
    and (is_spent or not fits_again(call_legs, rooms, is_charged)) then
    return {reasons[shortest], shortest}
  end
  if adds then
    hold_more(accounts, call_legs, values, rooms, is_charged)
    head.granted_seconds = seconds
    head.final = request.second_try == 1 and 1 or request.final
  elseif not seconds or request.second_try == 1 or request.final == 1 then
    head.final = 1
  end
  write(accounts, head, call_legs, tail, reversal)
  if not adds and is_spent then
    return {reasons[shortest], shortest}
  end
  return answer_grant(accounts, head, call_legs, adds and 0 or 1)
end

local function reserve()
  local record = redis.call("GET", KEYS[1])
  if not record then
    return {OUTCOME_UNKNOWN_CALL}
  end
  local head, call_legs, tail = unpack_call(record)
  if head.state == STATE_ENDED then
    return {OUTCOME_UNKNOWN_CALL}
  end
  if head.attempt ~= request.attempt then
    return {OUTCOME_STALE_CALL, record}
  end
  local accounts, stale = load_accounts(7, head.legs, 6, request.valid_from, request.valid_until)
  if not accounts then
    return stale
  end
  for leg = 1, head.legs do
    roll_period(accounts[leg])
  end
  if head.state == STATE_OPEN and request.used_seconds <= head.used_seconds then
    return renew(accounts, head, call_legs, tail)
  end
  if is_denied(head) then
    if head.state == STATE_OPEN then
      record_use(accounts, head, call_legs)
      write(accounts, head, call_legs, tail)
    end
    return {request.denial, 1}
  end
  return extend(accounts, head, call_legs, tail)
end

return reserve()
