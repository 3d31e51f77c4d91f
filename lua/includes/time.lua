-- The store's own clock: every script decides by it, never by a caller's.
local store_time = redis.call("TIME")
-- Arithmetic reads the digits as exactly as tonumber does, and costs no call of a function.
local now_seconds, microseconds = store_time[1] + 0, store_time[2] + 0
local now_us = now_seconds * 1000000 + microseconds
local now_ms = now_seconds * 1000 + (microseconds - microseconds % 1000) / 1000
