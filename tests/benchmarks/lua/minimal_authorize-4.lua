-- Purpose: the smallest authorize that debits two accounts and may be repeated; what authz's own
--   is measured against. It checks and takes money of both, remembers the call with its opaque
--   rates, and when to miss it. No configuration, versions, limits, trunks, periods, policies,
--   alerts, second tries, tombstones to look for, or chains of another length.
-- KEYS: 1 call, 2 leases, 3 sub-account, 4 master (hashes with one field, `balance`)
-- ARGV: 1 hold of the sub-account, 2 hold of the master, 3 record of the call (both holds packed,
--   then rates), 4 member of the leases, 5 seconds of the lease
-- Returns: {1, balance of both}, {0, balance of both} or {2} for a call that is known
-- Emits: nothing
if redis.call("GET", KEYS[1]) then
  return {2}
end
local sub_hold, master_hold = tonumber(ARGV[1]), tonumber(ARGV[2])
local sub = tonumber(redis.call("HGET", KEYS[3], "balance"))
local master = tonumber(redis.call("HGET", KEYS[4], "balance"))
if sub < sub_hold or master < master_hold then
  return {0, sub, master}
end
local now_seconds = tonumber(redis.call("TIME")[1])
redis.call("HINCRBY", KEYS[3], "balance", 0 - sub_hold)
redis.call("HINCRBY", KEYS[4], "balance", 0 - master_hold)
redis.call("SET", KEYS[1], ARGV[3])
redis.call("ZADD", KEYS[2], now_seconds + tonumber(ARGV[5]), ARGV[4])
return {1, sub - sub_hold, master - master_hold}
