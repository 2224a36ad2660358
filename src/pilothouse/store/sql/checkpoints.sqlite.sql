-- name: insert_checkpoints
-- See settle_runs: what a RETURNING would give, then the rows.
SELECT json_group_array(json_object('run_id', item.run_id, 'key', item.key)) AS rows_json
FROM @rows(run_id text, key text, attempt integer, kind text, request_hash text, request text, state text,
    result text, error text, tries integer, state_version integer, started_at bigint, finished_at bigint) AS item
JOIN runs ON runs.id = item.run_id AND runs.state = 'running' AND runs.attempt = item.attempt
LEFT JOIN checkpoints ON checkpoints.run_id = item.run_id AND checkpoints.key = item.key
WHERE checkpoints.run_id IS NULL OR checkpoints.state = 'retryable';

INSERT INTO checkpoints (run_id, key, attempt, kind, request_hash, request, state, result, error, tries,
    state_version, started_at, finished_at)
SELECT item.run_id, item.key, item.attempt, item.kind, item.request_hash, item.request, item.state, item.result,
    item.error, item.tries, item.state_version, item.started_at, item.finished_at
FROM @rows(run_id text, key text, attempt integer, kind text, request_hash text, request text, state text,
    result text, error text, tries integer, state_version integer, started_at bigint, finished_at bigint) AS item
JOIN runs ON runs.id = item.run_id
WHERE runs.state = 'running' AND runs.attempt = item.attempt
ON CONFLICT (run_id, key) DO UPDATE SET attempt = excluded.attempt, kind = excluded.kind,
    request_hash = excluded.request_hash, request = excluded.request, state = excluded.state,
    result = excluded.result, error = excluded.error, tries = checkpoints.tries + excluded.tries,
    state_version = excluded.state_version, started_at = excluded.started_at, finished_at = excluded.finished_at
WHERE checkpoints.state = 'retryable'
