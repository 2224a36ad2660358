-- name: settle_runs
-- What a RETURNING would give is read first: the writer is alone, and one value costs one call instead of one per row.
SELECT json_group_array(json_object('id', runs.id, 'tenant', runs.tenant, 'agent', runs.agent, 'lane', runs.lane,
    'attempt', runs.attempt, 'parent_id', runs.parent_id, 'started_at', runs.started_at, 'webhook_url', runs.webhook_url,
    'state', CASE
        WHEN cancel_requested_at IS NOT NULL AND item.state IN ('queued', 'waiting', 'failed') THEN 'cancelled'
        ELSE item.state END,
    'finished_at', CASE
        WHEN item.state IN ('succeeded', 'failed', 'cancelled') OR cancel_requested_at IS NOT NULL THEN :now END
    )) AS rows_json
FROM @rows(run_id text, attempt integer, state text, delay_us bigint, wake_at bigint, output text, error text,
    failure integer, loss integer) AS item
JOIN runs ON runs.id = item.run_id AND runs.attempt = item.attempt AND runs.state = 'running';

UPDATE runs
SET state = CASE
        WHEN cancel_requested_at IS NOT NULL AND item.state IN ('queued', 'waiting', 'failed') THEN 'cancelled'
        ELSE item.state END,
    available_at = CASE
        WHEN cancel_requested_at IS NOT NULL THEN NULL
        WHEN item.state = 'queued' THEN :now + item.delay_us
        WHEN item.state = 'waiting' THEN item.wake_at END,
    output = item.output,
    error = item.error,
    failures = failures + item.failure,
    losses = losses + item.loss,
    finished_at = CASE
        WHEN item.state IN ('succeeded', 'failed', 'cancelled') OR cancel_requested_at IS NOT NULL THEN :now END
FROM @rows(run_id text, attempt integer, state text, delay_us bigint, wake_at bigint, output text, error text,
    failure integer, loss integer) AS item
WHERE runs.id = item.run_id AND runs.attempt = item.attempt AND runs.state = 'running'
