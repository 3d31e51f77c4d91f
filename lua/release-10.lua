-- Purpose: take back a call that the daemon has refused although its script allowed it (the
--   answer came too late). Nothing was charged, so nothing is booked and the id stays free.
-- KEYS: 1 call, 2 leases, 3 prefix of the closed hashes, 4..6 unused, 7..10 accounts, leaf first
-- ARGV: 1 packed settle (only `attempt` and `closed_hours` count), 2 unused, 3 member of the leases
-- Returns: {0} or {OUTCOME_UNKNOWN_CALL} when another attempt has adopted the call, or none is open
-- Emits: nothing
--- @include "settlement"
--- @layout settle

local request = unpack_settle(ARGV[1])

local function release()
  local record = redis.call("GET", KEYS[1])
  if not record then
    return {OUTCOME_UNKNOWN_CALL}
  end
  local head, call_legs = unpack_call(record)
  if head.state ~= STATE_OPEN or head.attempt ~= request.attempt or head.reported == 1 then
    return {OUTCOME_UNKNOWN_CALL}
  end
  local accounts = {}
  for leg = 1, head.legs do
    local account = unpack_account_state(redis.call("HGET", KEYS[6 + leg], "s"))
    account.key = KEYS[6 + leg]
    accounts[leg] = account
  end
  release_call(accounts, head, call_legs)
  redis.call("DEL", KEYS[1])
  redis.call("ZREM", KEYS[2], ARGV[3])
  expire_filter(KEYS[3], head.authorized_us, request.closed_hours)
  store_accounts(accounts)
  return {0}
end

return release()
