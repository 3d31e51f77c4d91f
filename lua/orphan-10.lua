-- Purpose: claim a call whose lease has run out: free its slots and hold, settle it provisionally.
-- KEYS: 1 call, 2 leases, 3 prefix of the closed hashes, 4 bucket, 5 ledger, 6 events,
--   7..10 accounts, leaf first (unused places repeat the leaf)
-- ARGV: 1 packed settle (`used_seconds` as the sweeper read it, `policy`, `force` ignores the
--   lease), 2 call digest, 3 member of the leases, 4 unused, 5 strings of the ledger entry
--   (opaque), 6..5+legs packed limits
-- Returns: {0, seconds, 0, then billing, cost, balance of every leg}, {OUTCOME_UNKNOWN_CALL},
--   {OUTCOME_LEASE_RUNS}, {OUTCOME_STALE_CALL, record}, {OUTCOME_STALE_CONFIG},
--   {OUTCOME_STALE_TIME, now} or {OUTCOME_ACCOUNT_MISSING, leg}
-- Emits: call.orphaned, balance.*, spend_limit.*, recharge.*
--- @include "settlement"
--- @layout settle

local request = unpack_settle(ARGV[1])

local function provisional_costs(head, call_legs)
  local costs = {}
  for leg = 1, head.legs do
    costs[leg] = 0
    if head.reported == 1 and request.policy == POLICY_CHARGE_REPORTED then
      costs[leg] = call_legs[leg].used
    elseif head.reported == 1 and request.policy == POLICY_CHARGE_HELD then
      costs[leg] = call_legs[leg].held
    end
  end
  return costs
end

local function claim()
  local record = redis.call("GET", KEYS[1])
  if not record then
    redis.call("ZREM", KEYS[2], ARGV[3])
    return {OUTCOME_UNKNOWN_CALL}
  end
  local head, call_legs, tail = unpack_call(record)
  if head.state ~= STATE_OPEN then
    redis.call("ZREM", KEYS[2], ARGV[3])
    return {OUTCOME_UNKNOWN_CALL}
  end
  if request.force == 0 and head.lease_ms > now_ms then
    return {OUTCOME_LEASE_RUNS}
  end
  if head.attempt ~= request.attempt or head.used_seconds ~= request.used_seconds then
    return {OUTCOME_STALE_CALL, record}
  end
  local accounts, stale = load_accounts(7, head.legs, 6, request.valid_from, request.valid_until)
  if not accounts then
    return stale
  end
  local costs = provisional_costs(head, call_legs)
  release_call(accounts, head, call_legs)
  local movements = charge_legs(accounts, call_legs, costs)
  -- Hold and use stay in the record, for a call that comes back; the accounts have them no more.
  for leg = 1, head.legs do
    call_legs[leg].charged = costs[leg]
  end
  head.state = STATE_ORPHAN
  -- The first write frees memory: an orphan is claimed also when the store is full.
  redis.call("DEL", KEYS[1])
  redis.call("ZREM", KEYS[2], ARGV[3])
  redis.call("SET", KEYS[1], pack_call(head, call_legs, tail), "EX", request.closed_hours * 3600)
  expire_filter(KEYS[3], head.authorized_us, request.closed_hours)
  append_entry(KEYS[4], KEYS[5], accounts,
    {kind = KIND_CALL, marks = head.marks + MARK_PROVISIONAL, call_class = head.call_class,
      direction = head.direction, seconds = head.used_seconds,
      started_at = request.started_at}, movements, ARGV[5])
  emit(KEYS[6], "call.orphaned", accounts[1], "call", ARGV[3], "seconds", head.used_seconds)
  cross_thresholds(KEYS[4], KEYS[5], KEYS[6], accounts)
  store_accounts(accounts)
  return append_charges({0, head.used_seconds, 0}, accounts, call_legs, costs)
end

return claim()
