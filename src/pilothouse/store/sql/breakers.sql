-- name: list_breakers
SELECT name, state, successes, failures, window_at, open_until, opens, probes, probes_at, changed_at, reason, :now AS now
FROM breakers ORDER BY name

-- name: breaker_by_name
SELECT name, state, successes, failures, window_at, open_until, opens, probes, probes_at, changed_at, reason
FROM breakers WHERE name = :name

-- name: add_breaker
INSERT INTO breakers (name, state, successes, failures, window_at, open_until, opens, probes, probes_at, changed_at,
    reason)
VALUES (:name, 'closed', 0, 0, :now, 0, 0, 0, 0, :now, '')
ON CONFLICT (name) DO NOTHING

-- name: set_breaker
UPDATE breakers
SET state = :state, successes = :successes, failures = :failures, window_at = :window_at, open_until = :open_until,
    opens = :opens, probes = :probes, probes_at = :probes_at, changed_at = :changed_at, reason = :reason
WHERE name = :name
