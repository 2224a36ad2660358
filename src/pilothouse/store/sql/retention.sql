-- name: prunable_runs
-- Runs that ended before an instant, by age. Kept: dead letters, children whose parent may still read their result,
-- and runs with an effect that nobody knows the outcome of, or that is part of an open incident.
SELECT runs.id, runs.tenant, runs.agent, runs.lane, runs.state FROM runs
WHERE runs.id > :after AND runs.id < :below AND runs.finished_at < CAST(:before AS BIGINT)
    AND (runs.state IN ('succeeded', 'cancelled') OR (runs.state = 'failed' AND runs.dismissed_at IS NOT NULL))
    AND NOT EXISTS (
        SELECT 1 FROM runs AS parent
        WHERE parent.id = runs.parent_id AND parent.state IN ('queued', 'running', 'waiting', 'failed'))
    AND NOT EXISTS (
        SELECT 1 FROM effects WHERE effects.run_id = runs.id AND effects.state IN ('intended', 'unknown'))
    AND NOT EXISTS (
        SELECT 1 FROM incident_effects JOIN incidents ON incidents.id = incident_effects.incident_id
        WHERE incident_effects.run_id = runs.id AND incidents.state = 'open')
ORDER BY runs.id LIMIT :limit

-- name: attempts_by_outcome
SELECT runs.agent, runs.lane, attempts.state, count(*) AS attempts
FROM @rows(id text) AS item
JOIN runs ON runs.id = item.id
JOIN attempts ON attempts.run_id = item.id
GROUP BY runs.agent, runs.lane, attempts.state

-- name: prune_attempts
DELETE FROM attempts WHERE run_id IN (SELECT item.id FROM @rows(id text) AS item)

-- name: prune_logs
DELETE FROM run_logs WHERE run_id IN (SELECT item.id FROM @rows(id text) AS item)

-- name: prune_run_balances
-- What they used stays in the ledger.
DELETE FROM balances WHERE period = 'run' AND account IN (SELECT 'run:' || item.id FROM @rows(id text) AS item)

-- name: prune_run_limits
-- The latest change stays: everybody knows the limits by its epoch.
DELETE FROM limits
WHERE period = 'run' AND scope IN (SELECT 'run:' || item.id FROM @rows(id text) AS item)
    AND epoch < (SELECT max(others.epoch) FROM limits AS others)

-- name: prune_runs
DELETE FROM runs WHERE id IN (SELECT item.id FROM @rows(id text) AS item)
