-- The store's own clock: every script decides by it, never by a caller's.
local store_time = redis.call("TIME")
local now_seconds, microseconds = tonumber(store_time[1]), tonumber(store_time[2])
local now_us = now_seconds * 1000000 + microseconds
local now_ms = now_seconds * 1000 + (microseconds - microseconds % 1000) / 1000
