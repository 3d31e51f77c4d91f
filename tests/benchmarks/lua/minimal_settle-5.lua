-- Purpose: the smallest settle that debits two accounts; what authz's own is measured against.
--   It gives back what the call held beyond its cost and leaves a ledger entry. No tombstone,
--   reports, spend, alerts, recharges, overrun, orphans or corrections.
-- KEYS: 1 call, 2 leases, 3 sub-account, 4 master, 5 ledger
-- ARGV: 1 cost to the sub-account, 2 cost to the master, 3 ledger entry, 4 member of the leases
-- Returns: {1, balance of both} or {0} for a call that is not open
-- Emits: nothing
local record = redis.call("GET", KEYS[1])
if not record then
  return {0}
end
local sub_hold, master_hold = struct.unpack(">i8i8", record)
redis.call("DEL", KEYS[1])
redis.call("ZREM", KEYS[2], ARGV[4])
local sub = redis.call("HINCRBY", KEYS[3], "balance", sub_hold - tonumber(ARGV[1]))
local master = redis.call("HINCRBY", KEYS[4], "balance", master_hold - tonumber(ARGV[2]))
redis.call("XADD", KEYS[5], "*", "e", ARGV[3])
return {1, sub, master}
