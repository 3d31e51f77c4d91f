-- Purpose: book a credit or a debit on an account, or on its whole chain, once per reference.
-- KEYS: 1 reference, 2 refunds of the call (only with `per_leg`), 3 prefix of the closed hashes,
--   4 bucket, 5 ledger, 6 events, 7..10 accounts, leaf first (unused places repeat the leaf)
-- ARGV: 1 packed posting, 2 digest of the refunded call and the packed amounts given back of it
--   before, as the caller has read them (only with `per_leg`), 3 hours for which tombstones are
--   kept, 4 amounts of every leg, 5 strings of the ledger entry (opaque), 6..5+legs packed limits,
--   6+legs costs of every leg and what was given back of them, of an archived call (PER_LEG_ARCHIVE)
-- Returns: {0, sequence, then balance, credit left of every leg}, {OUTCOME_DUPLICATE, sequence,
--   then the same as of now}, {OUTCOME_REFERENCE_CONFLICT}, {OUTCOME_OUT_OF_RANGE, leg},
--   {reason, leg, room}, {OUTCOME_NOT_REFUNDABLE, leg, most}, {OUTCOME_UNKNOWN_CALL},
--   {OUTCOME_STALE_CALL} when more was given back meanwhile, {OUTCOME_STALE_CONFIG}, {OUTCOME_STALE_TIME, now} or
--   {OUTCOME_ACCOUNT_MISSING, leg}
-- Emits: balance.*, spend_limit.*, recharge.*
--- @include "settlement"
--- @include "room"
--- @layout posting, reference

local SIZE_DIGEST = 16
local request = unpack_posting(ARGV[1])
local legs = request.legs

local function answer(code, sequence, accounts)
  local reply = {code, sequence}
  for leg = 1, #accounts do
    local account = accounts[leg]
    reply[#reply + 1] = account.balance
    reply[#reply + 1] = account.balance - account.held + account.limits.credit_limit
  end
  return reply
end

-- Returns what each leg of the call was charged, and what is known to be given back of it
-- already; nil for an unknown call.
local function charged()
  if request.per_leg == PER_LEG_ARCHIVE then
    local known = unpack_amounts(ARGV[6 + legs], 2 * legs)
    local costs, before = {}, {}
    for leg = 1, legs do
      costs[leg], before[leg] = known[leg], known[legs + leg]
    end
    return costs, before
  end
  local packed = find_tombstone(KEYS[3], string.sub(ARGV[2], 1, SIZE_DIGEST), tonumber(ARGV[3]))
  if not packed or unpack_tombstone(packed).legs ~= legs then
    return nil
  end
  local costs = {}
  for leg = 1, legs do
    local position = SIZE_tombstone + 1 + (leg - 1) * SIZE_tombstone_leg
    costs[leg] = unpack_tombstone_leg(packed, position).cost
  end
  return costs, {}
end

-- A refund of a call gives each leg at most what that leg was charged, over all refunds.
-- Returns what has been given back with this one, packed; or nil and the answer.
local function refunds_after(amounts)
  local costs, before = charged()
  if not costs then
    return nil, {OUTCOME_UNKNOWN_CALL}
  end
  -- The caller has rounded this part by what was given back before.
  local given = redis.call("GET", KEYS[2]) or ""
  if given ~= string.sub(ARGV[2], SIZE_DIGEST + 1) then
    return nil, {OUTCOME_STALE_CALL}
  end
  if given ~= "" then
    before = unpack_amounts(given, legs)
  end
  local after = {}
  for leg = 1, legs do
    local given_before = before[leg] or 0
    after[leg] = given_before + amounts[leg]
    if after[leg] > costs[leg] then
      return nil, {OUTCOME_NOT_REFUNDABLE, leg, costs[leg] - given_before}
    end
  end
  return struct.pack(">" .. string.rep("i8", legs), unpack(after))
end

-- Returns the refusal of an amount that does not fit, or nil.
local function refusal(accounts, amounts)
  for leg = 1, legs do
    local account = accounts[leg]
    if math.abs(account.balance + amounts[leg]) > BOUND_MICROS then
      return {OUTCOME_OUT_OF_RANGE, leg}
    end
    if request.require_available == 1 then
      local room, _, reason = room_of(account, 0)
      if request.counts_as_spend == 0 then
        reason = REASON_INSUFFICIENT_CREDIT
        room = account.limits.unlimited == 1 and BOUND_MICROS
          or account.balance - account.held + account.limits.credit_limit
      end
      if room + amounts[leg] < 0 then
        return {reason, leg, room}
      end
    end
  end
  return nil
end

local function remembered(accounts)
  local packed = redis.call("GET", KEYS[1])
  if not packed then
    return nil
  end
  local known = unpack_reference(packed)
  if known.amount ~= request.amount or known.kind ~= request.kind then
    return {OUTCOME_REFERENCE_CONFLICT}
  end
  return answer(OUTCOME_DUPLICATE, known.sequence, accounts)
end

local function is_recharge_answer(account)
  return request.recharge > 0 and request.recharge <= open_account_state(account).recharge_number
end

local function post()
  local accounts, stale = load_accounts(7, legs, 6, request.valid_from, request.valid_until)
  if not accounts then
    return stale
  end
  local amounts = unpack_amounts(ARGV[4], legs)
  local refused = remembered(accounts)
  if refused then
    return refused
  end
  local refunds
  if request.per_leg ~= PER_LEG_NONE then
    refunds, refused = refunds_after(amounts)
    if not refunds then
      return refused
    end
  end
  -- Before the limits are looked at: what was spent yesterday counts against no limit of today.
  for leg = 1, legs do
    roll_period(accounts[leg])
  end
  refused = refusal(accounts, amounts)
  if refused then
    return refused
  end
  local movements = {}
  for leg = 1, legs do
    if request.counts_as_spend == 1 then
      accounts[leg].day_spend = accounts[leg].day_spend - amounts[leg]
      accounts[leg].month_spend = accounts[leg].month_spend - amounts[leg]
    end
    move_balance(accounts[leg], amounts[leg])
    movements[leg] = {billing = BILLING_FREE, amount = amounts[leg]}
  end
  local sequence = append_entry(KEYS[4], KEYS[5], accounts,
    {kind = request.kind, marks = 0, call_class = 0, direction = 0, seconds = 0,
      started_at = now_seconds}, movements, ARGV[5])
  redis.call("SET", KEYS[1], pack_reference({layout = LAYOUT_NUMBER, kind = request.kind,
    amount = request.amount, sequence = sequence, balance = accounts[1].balance}),
    "EX", request.keep_seconds)
  if refunds then
    redis.call("SET", KEYS[2], refunds, "EX", request.keep_seconds)
  end
  for leg = 1, legs do
    if amounts[leg] > 0 then
      rearm(KEYS[6], accounts[leg])
    end
  end
  if is_recharge_answer(accounts[1]) then
    succeed_recharge(KEYS[6], accounts[1], request.recharge, amounts[1])
  end
  cross_thresholds(KEYS[4], KEYS[5], KEYS[6], accounts)
  store_accounts(accounts)
  return answer(0, sequence, accounts)
end

return post()
