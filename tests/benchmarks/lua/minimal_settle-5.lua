-- Purpose: the smallest settle that debits two accounts and may be repeated; what authz's own is
--   measured against. It gives back what the call held beyond its cost, leaves a ledger entry, and
--   remembers for a day that the call is closed. No reports, spend, alerts, recharges, overruns,
--   orphans, corrections or numbers of entries.
-- KEYS: 1 call, 2 leases, 3 sub-account, 4 master, 5 ledger
-- ARGV: 1 cost to the sub-account, 2 cost to the master, 3 ledger entry, 4 member of the leases
-- Returns: {1, balance of both}, {2} for a call that is closed or {0} for one that is unknown
-- Emits: nothing
local record = redis.call("GET", KEYS[1])
if not record then
  return {0}
end
if record == "closed" then
  return {2}
end
local sub_hold, master_hold = struct.unpack(">i8i8", record)
local sub = redis.call("HINCRBY", KEYS[3], "balance", sub_hold - tonumber(ARGV[1]))
local master = redis.call("HINCRBY", KEYS[4], "balance", master_hold - tonumber(ARGV[2]))
redis.call("SET", KEYS[1], "closed", "EX", 86400)
redis.call("ZREM", KEYS[2], ARGV[4])
redis.call("XADD", KEYS[5], "*", "e", ARGV[3])
return {1, sub, master}
