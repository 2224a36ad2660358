-- name: breaker_by_name
-- Held until the commit: what two workers saw of one dependency is counted one after the other.
SELECT name, state, successes, failures, window_at, open_until, opens, probes, probes_at, changed_at, reason
FROM breakers WHERE name = :name FOR UPDATE
