-- Purpose: book a call that the store never saw open, from its settle alone (after an outage).
-- KEYS: 1 call, 2 leases, 3 prefix of the closed hashes, 4 bucket, 5 ledger, 6 events,
--   7..10 accounts, leaf first (unused places repeat the leaf)
-- ARGV: 1 packed settle (`force`: an orphan's settlement is archived, which this one corrects),
--   2 call digest, 3 billing of every leg (one byte each), 4 costs of every leg, with `force` then
--   what each was charged, 5 strings of the ledger entry (opaque), 6..5+legs packed limits
-- Returns: {0, seconds, 0, ledger sequence, then billing, cost, balance of every leg},
--   {OUTCOME_DUPLICATE, seconds, then the last three}, {OUTCOME_SETTLED_DIFFERENTLY, seconds}, {OUTCOME_STALE_CALL, record} when it
--   is open after all, {OUTCOME_STALE_CONFIG}, {OUTCOME_STALE_TIME, now} or
--   {OUTCOME_ACCOUNT_MISSING, leg}
-- Emits: balance.*, spend_limit.*, recharge.*
--- @include "settlement"
--- @layout settle

local request = unpack_settle(ARGV[1])

local function book()
  local record = redis.call("GET", KEYS[1])
  if record and unpack_call_head(record).state ~= STATE_ENDED then
    return {OUTCOME_STALE_CALL, record}
  end
  local tombstone = find_tombstone(KEYS[3], ARGV[2], request.closed_hours)
  if tombstone then
    return answer_from_tombstone(tombstone, request.seconds, 7)
  end
  local accounts, stale = load_accounts(7, request.legs, 6, request.valid_from,
    request.valid_until)
  if not accounts then
    return stale
  end
  local call_legs = {}
  for leg = 1, request.legs do
    call_legs[leg] = {billing = string.byte(ARGV[3], leg), charged = 0}
  end
  local marks, costs = MARK_UNKNOWN, unpack_amounts(ARGV[4], request.legs)
  if request.force == 1 then
    marks = marks + MARK_CORRECTION
    local charged = unpack_amounts(string.sub(ARGV[4], 8 * request.legs + 1), request.legs)
    for leg = 1, request.legs do
      call_legs[leg].charged = charged[leg]
    end
  end
  local movements = charge_legs(accounts, call_legs, costs)
  redis.call("DEL", KEYS[1])
  write_tombstone(KEYS[3], ARGV[2], request.seconds, call_legs, costs, request.closed_hours)
  local sequence = append_entry(KEYS[4], KEYS[5], accounts,
    {kind = KIND_CALL, marks = marks, call_class = request.call_class,
      direction = request.direction, seconds = request.seconds, started_at = request.started_at},
    movements, ARGV[5])
  cross_thresholds(KEYS[4], KEYS[5], KEYS[6], accounts)
  store_accounts(accounts)
  return append_charges({0, request.seconds, 0, sequence}, accounts, call_legs, costs)
end

return book()
