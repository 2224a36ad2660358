-- name: set_limit
INSERT INTO limits (scope, period, unit, amount, source, set_by, set_at, epoch)
SELECT :scope, :period, :unit, CAST(:amount AS BIGINT), :source, :set_by, :now, coalesce(max(limits.epoch), 0) + 1
FROM limits WHERE true
ON CONFLICT (scope, period, unit) DO UPDATE SET amount = excluded.amount, source = excluded.source,
    set_by = excluded.set_by, set_at = excluded.set_at, epoch = excluded.epoch

-- name: delete_limit
DELETE FROM limits WHERE scope = :scope AND period = :period AND unit = :unit AND source = :source RETURNING amount

-- name: limit_by_key
SELECT * FROM limits WHERE scope = :scope AND period = :period AND unit = :unit

-- name: limits_epoch
SELECT coalesce(max(epoch), 0) AS epoch FROM limits

-- name: raise_limits_epoch
-- A limit that is gone has no row that could tell of its change, so one that is left does.
UPDATE limits SET epoch = CAST(:epoch AS BIGINT)
WHERE (scope, period, unit) IN (SELECT scope, period, unit FROM limits ORDER BY scope, period, unit LIMIT 1)

-- name: list_limits
SELECT limits.*, :now AS now FROM limits ORDER BY scope, period, unit

-- name: limits_from_settings
SELECT scope, period, unit, amount FROM limits WHERE source = 'settings' ORDER BY scope, period, unit

-- name: run_limits
SELECT limits.scope, limits.unit, limits.amount, (SELECT max(epoch) FROM limits) AS epoch FROM limits
WHERE period = 'run' AND unit IN ('calls', 'seconds')

-- name: limit_waits
SELECT DISTINCT run_id FROM waits
WHERE kind = 'limit' AND substr(name, 1, length(CAST(:prefix AS TEXT))) = CAST(:prefix AS TEXT)

-- name: release_limit_waits
-- Whoever waits for room in an account of this scope looks again.
DELETE FROM waits
WHERE kind = 'limit' AND substr(name, 1, length(CAST(:prefix AS TEXT))) = CAST(:prefix AS TEXT)
RETURNING run_id, wait_group
