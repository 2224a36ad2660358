-- name: insert_checkpoints
-- Written only while the attempt holds its run. A step whose failure ended an earlier attempt may be written again.
-- A scalar subquery is one probe per row; of a join PostgreSQL may make a scan, while it has no statistics of a new table.
INSERT INTO checkpoints (run_id, key, attempt, kind, request_hash, request, state, result, error, tries,
    state_version, started_at, finished_at)
SELECT item.run_id, item.key, item.attempt, item.kind, item.request_hash, item.request, item.state, item.result,
    item.error, item.tries, item.state_version, item.started_at, item.finished_at
FROM @rows(run_id text, key text, attempt integer, kind text, request_hash text, request text, state text,
    result text, error text, tries integer, state_version integer, started_at bigint, finished_at bigint) AS item
WHERE (SELECT runs.state = 'running' AND runs.attempt = item.attempt FROM runs WHERE runs.id = item.run_id)
ON CONFLICT (run_id, key) DO UPDATE SET attempt = excluded.attempt, kind = excluded.kind,
    request_hash = excluded.request_hash, request = excluded.request, state = excluded.state,
    result = excluded.result, error = excluded.error, tries = checkpoints.tries + excluded.tries,
    state_version = excluded.state_version, started_at = excluded.started_at, finished_at = excluded.finished_at
WHERE checkpoints.state = 'retryable'
RETURNING run_id, key

-- name: mark_retryable
-- The step whose failure ends the attempt is tried again by the next one.
UPDATE checkpoints
SET state = 'retryable'
FROM @rows(run_id text, attempt integer, key text) AS item
WHERE checkpoints.run_id = item.run_id AND checkpoints.key = item.key AND checkpoints.attempt <= item.attempt
    AND checkpoints.state = 'failed'

-- name: checkpoints_of_run
SELECT * FROM checkpoints WHERE run_id = :run_id ORDER BY started_at, key

-- name: own_checkpoints
SELECT item.run_id, item.key FROM @rows(run_id text, key text, attempt integer) AS item
JOIN checkpoints ON checkpoints.run_id = item.run_id AND checkpoints.key = item.key
    AND checkpoints.attempt = item.attempt

-- name: delete_checkpoints
DELETE FROM checkpoints WHERE run_id IN (SELECT item.id FROM @rows(id text) AS item)

-- name: forget_steps
-- Those that finished at an instant or later: a step that others are in finishes after them.
DELETE FROM checkpoints WHERE (run_id, key) IN (
    SELECT steps.run_id, steps.key FROM checkpoints AS steps
    JOIN @rows(id text, since bigint) AS item ON item.id = steps.run_id WHERE steps.finished_at >= item.since)

-- name: beginning_of_step
SELECT started_at FROM checkpoints WHERE run_id = :run_id AND key = :key

-- name: checkpoint_by_key
SELECT result FROM checkpoints WHERE run_id = :run_id AND key = :key
