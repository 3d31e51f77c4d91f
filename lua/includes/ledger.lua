-- The ledger: every movement of money, appended in the script that makes it.
--- @layout ledger_head, ledger_leg

-- Takes the next sequence number of each account and appends one entry for all legs.
-- `entry`: kind, marks, call_class, direction, seconds, started_at; `movements`: per leg
-- billing and amount, already added to the balance. `strings` is opaque. Returns the sequence.
local function append_entry(bucket_key, ledger_key, accounts, entry, movements, strings)
  entry.layout = LAYOUT_NUMBER
  entry.legs = #movements
  entry.sequence = redis.call("HINCRBY", bucket_key, "sequence", 1)
  local parts = {pack_ledger_head(entry)}
  for leg = 1, #movements do
    parts[leg + 1] = pack_ledger_leg({
      billing = movements[leg].billing,
      sequence = accounts[leg].sequence,
      amount = movements[leg].amount,
      balance = accounts[leg].balance,
    })
  end
  parts[#parts + 1] = strings
  redis.call("XADD", ledger_key, "*", "e", table.concat(parts))
  return entry.sequence
end

-- Adds `amount` to the balance and numbers the movement.
local function move_balance(account, amount)
  account.balance = account.balance + amount
  account.sequence = account.sequence + 1
end
