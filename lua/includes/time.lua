-- The store's own clock: every script decides by it, never by a caller's.
local store_time = redis.call("TIME")
local now_seconds = tonumber(store_time[1])
local now_us = now_seconds * 1000000 + tonumber(store_time[2])
local now_ms = now_seconds * 1000 + math.floor(tonumber(store_time[2]) / 1000)
