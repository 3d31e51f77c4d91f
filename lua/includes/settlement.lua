-- Booking the cost of a call: what settle, orphan and the settle of an unknown call share.
--- @include "accounts"
--- @include "calls"
--- @include "closed"
--- @include "events"

-- Frees what an open call occupies on every leg: hold, reported use, slots.
local function release_call(accounts, head, call_legs)
  for leg = 1, head.legs do
    local account, call_leg = accounts[leg], call_legs[leg]
    account.held = account.held - call_leg.held
    account.used = account.used - call_leg.used
    count_call(account, head.call_class, head.direction, call_leg.billing, 0 - 1)
  end
end

-- Charges `costs` less what is already charged; returns the movements for the ledger.
local function charge_legs(accounts, call_legs, costs)
  local movements = {}
  for leg = 1, #accounts do
    local account = accounts[leg]
    local amount = call_legs[leg].charged - costs[leg]
    roll_period(account)
    account.day_spend = account.day_spend - amount
    account.month_spend = account.month_spend - amount
    move_balance(account, amount)
    movements[leg] = {billing = call_legs[leg].billing, amount = amount}
  end
  return movements
end

-- Returns `count` amounts packed one after the other.
local function unpack_amounts(packed, count)
  return {struct.unpack(">" .. string.rep("i8", count), packed)}
end

-- Appends billing, cost and balance of every leg to an answer.
local function append_charges(answer, accounts, call_legs, costs)
  for leg = 1, #accounts do
    answer[#answer + 1] = call_legs[leg].billing
    answer[#answer + 1] = costs[leg]
    answer[#answer + 1] = accounts[leg].balance
  end
  return answer
end

-- What a settled call answers to another settle: the same again, or a refusal.
-- Balances are those of now; `first_account` is the place of the leaf in KEYS.
--- @seldom
local function answer_from_tombstone(packed, seconds, first_account)
  local head = unpack_tombstone(packed)
  if head.seconds ~= seconds then
    return {OUTCOME_SETTLED_DIFFERENTLY, head.seconds}
  end
  local answer = {OUTCOME_DUPLICATE, head.seconds}
  local position = SIZE_tombstone + 1
  for leg = 1, head.legs do
    local tombstone_leg = unpack_tombstone_leg(packed, position)
    position = position + SIZE_tombstone_leg
    local state = redis.call("HGET", KEYS[first_account + leg - 1], "s")
    answer[#answer + 1] = tombstone_leg.billing
    answer[#answer + 1] = tombstone_leg.cost
    answer[#answer + 1] = state and unpack_account_state(state).balance or 0
  end
  return answer
end
