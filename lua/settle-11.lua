-- Purpose: book the exact cost of an ended call on every leg and free what it held.
-- KEYS: 1 call, 2 leases, 3 prefix of the closed hashes, 4 bucket, 5 ledger, 6 events,
--   7 closed hash of this hour, 8..11 accounts, leaf first (as many as there are)
-- ARGV: 1 packed settle, then costs of every leg, 2 call digest, 3 member of the leases,
--   4 strings of the ledger entry (opaque), 5..4+legs packed limits
-- Returns: {0, seconds, overrun, ledger sequence, then billing, cost, balance of every leg},
--   {OUTCOME_DUPLICATE, seconds, then the last three}, {OUTCOME_SETTLED_DIFFERENTLY, seconds},
--   {OUTCOME_UNKNOWN_CALL}, {OUTCOME_STALE_CALL, record}, {OUTCOME_STALE_CONFIG},
--   {OUTCOME_STALE_TIME, now} or {OUTCOME_ACCOUNT_MISSING, leg}
-- Emits: call.overrun, balance.*, spend_limit.*, recharge.*
--- @include "time"
--- @shortcut "settle"
--- @include "settlement"
--- @layout settle

local request = unpack_settle(ARGV[1])

-- An authorize that its own hang-up has overtaken must not start the call.
--- @seldom
local function mark_ended()
  local mark = pack_call_head({
    layout = LAYOUT_NUMBER, state = STATE_ENDED, call_class = 0, direction = 0, legs = 0,
    final = 0, reported = 0, marks = 0, attempt = 0, request = string.rep("0", 8),
    authorized_us = now_us, lease_ms = 0, ring_seconds = 0, granted_seconds = 0, used_seconds = 0,
  })
  -- A write that needs no memory opens the way for one that does: a full store takes a settle.
  redis.call("DEL", KEYS[1])
  redis.call("SET", KEYS[1], mark, "EX", request.ring_seconds)
  return {OUTCOME_UNKNOWN_CALL}
end

--- @seldom
local function settle_unknown()
  local tombstone = find_tombstone(KEYS[3], ARGV[2], request.closed_hours)
  if tombstone then
    return answer_from_tombstone(tombstone, request.seconds, 8)
  end
  return mark_ended()
end

local function settle_known(record, head, call_legs)
  if head.attempt ~= request.attempt then
    return {OUTCOME_STALE_CALL, record}
  end
  local accounts, stale = load_accounts(8, head.legs, 5, request.valid_from, request.valid_until)
  if not accounts then
    return stale
  end
  local costs = unpack_amounts(string.sub(ARGV[1], SIZE_settle + 1), head.legs)
  local marks = head.marks
  if head.state == STATE_OPEN then
    release_call(accounts, head, call_legs)
  else
    marks = marks + MARK_CORRECTION
  end
  local overrun = 0
  if head.granted_seconds >= 0 and request.seconds > head.granted_seconds then
    overrun = 1
  end
  local movements = charge_legs(accounts, call_legs, costs)
  -- The first write frees memory: a settle passes also when the store is full.
  redis.call("DEL", KEYS[1])
  redis.call("ZREM", KEYS[2], ARGV[3])
  write_tombstone(KEYS[3], ARGV[2], request.seconds, call_legs, costs, request.closed_hours)
  expire_filter(KEYS[3], head.authorized_us, request.closed_hours)
  local sequence = append_entry(KEYS[4], KEYS[5], accounts,
    {kind = KIND_CALL, marks = marks, call_class = head.call_class, direction = head.direction,
      seconds = request.seconds, started_at = request.started_at}, movements, ARGV[4])
  if overrun == 1 then
    emit(KEYS[6], "call.overrun", accounts[1], "call", ARGV[3], "granted", head.granted_seconds,
      "seconds", request.seconds)
  end
  cross_thresholds(KEYS[4], KEYS[5], KEYS[6], accounts)
  store_accounts(accounts)
  return append_charges({0, request.seconds, overrun, sequence}, accounts, call_legs, costs)
end

local function settle()
  local record = redis.call("GET", KEYS[1])
  if not record then
    return settle_unknown()
  end
  local head, call_legs = unpack_call(record)
  if head.state == STATE_ENDED then
    return mark_ended()
  end
  return settle_known(record, head, call_legs)
end

return settle()
