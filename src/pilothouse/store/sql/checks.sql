-- The invariants that `db check` proves. Each statement lists what breaks one; an empty answer is the proof.

-- name: check_running_without_lease
SELECT runs.id AS id, 'state running, attempt ' || runs.attempt AS found
FROM runs
LEFT JOIN attempts ON attempts.run_id = runs.id AND attempts.number = runs.attempt AND attempts.state = 'running'
LEFT JOIN workers ON workers.id = attempts.worker_id AND workers.state IN ('running', 'draining')
WHERE runs.state = 'running' AND (workers.id IS NULL OR workers.lease_until < :now - CAST(:grace_us AS BIGINT))
LIMIT :limit

-- name: check_attempt_not_settled
-- A running attempt is the latest of a running run; any other must have been settled.
SELECT attempts.run_id || '.' || attempts.number AS id, 'attempt running, run ' || runs.state AS found
FROM attempts JOIN runs ON runs.id = attempts.run_id
WHERE attempts.state = 'running' AND (runs.state <> 'running' OR runs.attempt <> attempts.number)
LIMIT :limit

-- name: check_attempts_counted
-- Attempts are numbered 1 to n without a gap, so none was lost or settled in place of another.
SELECT runs.id AS id, 'run says ' || runs.attempt || ' attempts, found ' || count(attempts.number)
    || ' up to ' || coalesce(max(attempts.number), 0) AS found
FROM runs LEFT JOIN attempts ON attempts.run_id = runs.id
GROUP BY runs.id, runs.attempt
HAVING count(attempts.number) <> runs.attempt OR coalesce(max(attempts.number), 0) <> runs.attempt
LIMIT :limit

-- name: check_settled_once
-- An attempt has exactly one audit record of its claim, and one of its end once it has ended; older ones may be pruned.
SELECT attempts.run_id || '.' || attempts.number AS id,
    'claimed ' || coalesce(records.claims, 0) || ' times, settled ' || coalesce(records.settles, 0) || ' times' AS found
FROM attempts LEFT JOIN (
    SELECT entity_id, attempt, sum(CASE WHEN action = 'run.claimed' THEN 1 ELSE 0 END) AS claims,
        sum(CASE WHEN before = 'running' AND after <> 'running' THEN 1 ELSE 0 END) AS settles
    FROM audit WHERE entity = 'run' AND attempt IS NOT NULL GROUP BY entity_id, attempt
) AS records ON records.entity_id = attempts.run_id AND records.attempt = attempts.number
WHERE attempts.started_at > coalesce((SELECT max(pruned_through) FROM audit_seals), -1)
    AND (coalesce(records.claims, 0) <> 1
        OR coalesce(records.settles, 0) <> CASE WHEN attempts.state = 'running' THEN 0 ELSE 1 END)
LIMIT :limit

-- name: check_foreign_checkpoint
SELECT checkpoints.run_id || '/' || checkpoints.key AS id, 'written by attempt ' || checkpoints.attempt AS found
FROM checkpoints
LEFT JOIN attempts ON attempts.run_id = checkpoints.run_id AND attempts.number = checkpoints.attempt
WHERE attempts.run_id IS NULL OR checkpoints.finished_at < attempts.started_at - CAST(:grace_us AS BIGINT)
LIMIT :limit

-- name: check_ended_without_time
SELECT id, state || ', finished_at ' || coalesce(CAST(finished_at AS TEXT), 'empty') AS found
FROM runs
WHERE (state IN ('succeeded', 'failed', 'cancelled')) <> (finished_at IS NOT NULL)
LIMIT :limit

-- name: check_missed_wake
-- A waiting run none of whose wake-ups is due must still wait for something that has not happened.
SELECT runs.id AS id, 'waiting, but ' || waits.kind || ' ' || waits.name || ' has happened' AS found
FROM runs JOIN waits ON waits.run_id = runs.id
WHERE runs.state = 'waiting' AND (runs.available_at IS NULL OR runs.available_at > :now)
    AND ((waits.kind = 'signal' AND EXISTS (
            SELECT 1 FROM signals WHERE signals.run_id = waits.run_id AND signals.name = waits.name))
        OR (waits.kind = 'child' AND EXISTS (
            SELECT 1 FROM runs AS child
            WHERE child.id = waits.name AND child.state IN ('succeeded', 'failed', 'cancelled'))))
LIMIT :limit

-- name: check_wait_without_end
SELECT runs.id AS id, 'waiting for nothing' AS found
FROM runs
WHERE runs.state = 'waiting' AND runs.available_at IS NULL
    AND NOT EXISTS (SELECT 1 FROM waits WHERE waits.run_id = runs.id)
LIMIT :limit

-- name: check_lost_blobs
SELECT run_id || '/' || place AS id, reference || ' is not there' AS found
FROM (
    SELECT id AS run_id, 'input' AS place, input AS reference FROM runs WHERE substr(input, 1, 5) = 'blob:'
    UNION ALL
    SELECT id, 'output', output FROM runs WHERE substr(output, 1, 5) = 'blob:'
    UNION ALL
    SELECT run_id, key, result FROM checkpoints WHERE substr(result, 1, 5) = 'blob:'
) AS referring
WHERE NOT EXISTS (
    SELECT 1 FROM blob_references JOIN blobs ON blobs.hash = blob_references.hash
    WHERE blob_references.run_id = referring.run_id AND blobs.hash = substr(referring.reference, 6))
LIMIT :limit

-- name: check_run_counters
SELECT agent || '/' || lane || '/' || label AS id, 'counter ' || sum(kept) || ', rows ' || sum(found) AS found
FROM (
    SELECT agent, lane, label, value AS kept, 0 AS found FROM counters WHERE name = 'runs'
    UNION ALL
    SELECT agent, lane, state, 0, 1 FROM runs
) AS both_sides
GROUP BY agent, lane, label
HAVING sum(kept) <> sum(found)
LIMIT :limit

-- name: check_tenant_counters
SELECT tenant || '/' || lane AS id, 'counter ' || sum(kept) || ', rows ' || sum(found) AS found
FROM (
    SELECT label AS tenant, lane, value AS kept, 0 AS found FROM counters WHERE name IN ('queued', 'running')
    UNION ALL
    SELECT tenant, '', 0, 1 FROM runs WHERE state = 'queued'
    UNION ALL
    SELECT tenant, lane, 0, 1 FROM runs WHERE state = 'running'
) AS both_sides
GROUP BY tenant, lane
HAVING sum(kept) <> sum(found)
LIMIT :limit

-- name: check_attempt_counters
SELECT agent || '/' || lane || '/' || label AS id, 'counter ' || sum(kept) || ', rows ' || sum(found) AS found
FROM (
    SELECT agent, lane, label, value AS kept, 0 AS found FROM counters WHERE name = 'attempts'
    UNION ALL
    SELECT agent, lane, label, 0, value FROM counters WHERE name = 'pruned_attempts'
    UNION ALL
    SELECT runs.agent, runs.lane, attempts.state, 0, 1
    FROM attempts JOIN runs ON runs.id = attempts.run_id WHERE attempts.state <> 'running'
) AS both_sides
GROUP BY agent, lane, label
HAVING sum(kept) <> sum(found)
LIMIT :limit

-- name: check_sizes
SELECT (SELECT count(*) FROM runs) AS runs, (SELECT count(*) FROM attempts) AS attempts,
    (SELECT count(*) FROM checkpoints) AS checkpoints, (SELECT count(*) FROM audit) AS audit
