-- name: switches_now
-- Every tripped switch beside the latest epoch: one row without a scope where none is tripped, no row before the first trip.
SELECT switch_epochs.epoch AS latest, switches.scope, switches.mode, switches.reason, switches.epoch, switches.tripped_by,
    switches.tripped_at
FROM switch_epochs LEFT JOIN switches ON switch_epochs.epoch > 0

-- name: list_switches
SELECT scope, mode, reason, epoch, tripped_by, tripped_at FROM switches ORDER BY tripped_at DESC, scope

-- name: switch_by_scope
SELECT scope, mode, reason, epoch, tripped_by, tripped_at FROM switches WHERE scope = :scope

-- name: next_switch_epoch
-- Held until the commit: trips, resets and runs that go to sleep on a switch come one after the other.
INSERT INTO switch_epochs (name, epoch) VALUES ('switches', 1)
ON CONFLICT (name) DO UPDATE SET epoch = switch_epochs.epoch + 1
RETURNING epoch

-- name: hold_switch_epoch
SELECT epoch FROM switch_epochs

-- name: trip_switch
INSERT INTO switches (scope, mode, reason, epoch, tripped_by, tripped_at)
VALUES (:scope, :mode, :reason, :epoch, :tripped_by, :now)
ON CONFLICT (scope) DO UPDATE SET mode = excluded.mode, reason = excluded.reason, epoch = excluded.epoch,
    tripped_by = excluded.tripped_by, tripped_at = excluded.tripped_at
RETURNING scope, mode, reason, epoch, tripped_by, tripped_at

-- name: reset_switch
DELETE FROM switches WHERE scope = :scope RETURNING scope, mode, reason, epoch, tripped_by, tripped_at

-- name: runs_held_by_switch
SELECT DISTINCT run_id AS id FROM waits WHERE kind = 'switch' AND name = :scope

-- name: wake_held_runs
-- Each waits for the switch in a group of its own, so that its reset alone wakes the run.
UPDATE runs
SET available_at = :now
WHERE state = 'waiting' AND id IN (SELECT run_id FROM waits WHERE kind = 'switch' AND name = :scope)

-- name: release_switch_waits
DELETE FROM waits WHERE kind = 'switch' AND name = :scope

-- name: acknowledge_switches
UPDATE workers SET switch_epoch = :epoch WHERE id = :id AND state IN ('running', 'draining')

-- name: silent_workers
-- Live workers that do not act by an epoch yet.
SELECT id, host, pid, switch_epoch, renewed_at FROM workers
WHERE state IN ('running', 'draining') AND lease_until >= :now AND switch_epoch < :epoch
ORDER BY id

-- name: live_worker_counts
SELECT count(*) AS live, coalesce(sum(CASE WHEN is_enabled = 1 THEN 0 ELSE 1 END), 0) AS disabled FROM workers
WHERE state IN ('running', 'draining') AND lease_until >= :now

-- name: last_effect_before
-- The last call that a switch covers and that began before an instant, as far as it has ended or was intended.
SELECT started.what, started.name, started.run_id, started.key, started.started_at
FROM (
    SELECT 'tool' AS what, tool AS name, tool, run_id, key, started_at FROM tool_calls
    WHERE started_at BETWEEN :earliest AND :tripped_at
    UNION ALL
    SELECT 'model', model, NULL, run_id, key, started_at FROM model_calls
    WHERE started_at BETWEEN :earliest AND :tripped_at AND outcome IN ('answered', 'failed')
    UNION ALL
    SELECT 'tool', tool, tool, run_id, key, intended_at FROM effects
    WHERE intended_at BETWEEN :earliest AND :tripped_at AND NOT (state = 'failed' AND coalesce(resolved_by, '') = 'switch')
) AS started JOIN runs ON runs.id = started.run_id
WHERE (CAST(:tenant AS TEXT) IS NULL OR runs.tenant = :tenant)
    AND (CAST(:agent AS TEXT) IS NULL OR runs.agent = :agent)
    AND (CAST(:lane AS TEXT) IS NULL OR runs.lane = :lane)
    AND (CAST(:version AS TEXT) IS NULL OR runs.fingerprint = :version)
    AND (CAST(:tool AS TEXT) IS NULL OR started.tool = :tool)
ORDER BY started.started_at DESC
LIMIT 1

-- name: first_effect_after
SELECT started.what, started.name, started.run_id, started.key, started.started_at
FROM (
    SELECT 'tool' AS what, tool AS name, tool, run_id, key, started_at FROM tool_calls
    WHERE started_at > :tripped_at
    UNION ALL
    SELECT 'model', model, NULL, run_id, key, started_at FROM model_calls
    WHERE started_at > :tripped_at AND outcome IN ('answered', 'failed')
    UNION ALL
    SELECT 'tool', tool, tool, run_id, key, intended_at FROM effects
    WHERE intended_at > :tripped_at AND NOT (state = 'failed' AND coalesce(resolved_by, '') = 'switch')
) AS started JOIN runs ON runs.id = started.run_id
WHERE (CAST(:tenant AS TEXT) IS NULL OR runs.tenant = :tenant)
    AND (CAST(:agent AS TEXT) IS NULL OR runs.agent = :agent)
    AND (CAST(:lane AS TEXT) IS NULL OR runs.lane = :lane)
    AND (CAST(:version AS TEXT) IS NULL OR runs.fingerprint = :version)
    AND (CAST(:tool AS TEXT) IS NULL OR started.tool = :tool)
ORDER BY started.started_at
LIMIT 1

-- name: is_agent_known
SELECT name FROM agents WHERE name = :name

-- name: is_version_known
SELECT name FROM agents WHERE fingerprint = :name LIMIT 1

-- name: is_tenant_known
SELECT label FROM counters WHERE name = 'queued' AND agent = '' AND lane = '' AND label = :name LIMIT 1

-- name: is_tool_known
-- The database knows tools by their calls: those that change the world by name, the others by when they were called.
SELECT tool FROM effects WHERE tool = :name
UNION ALL
SELECT tool FROM tool_calls WHERE tool = :name AND started_at > :now - 86400000000
LIMIT 1
