-- name: list_runs
-- Newest first, between two ids. Each of these lists walks another index; all take the same filters.
SELECT id, tenant, agent, lane, priority, state, available_at, attempt, failures, losses, max_attempts, parent_id,
    root_id, cancel_requested_at, progress_done, progress_total, dismissed_at, created_at, started_at, finished_at,
    deadline_at, error, idempotency_key, fingerprint
FROM runs
WHERE id < :before AND id >= :floor
    AND (CAST(:state AS TEXT) IS NULL OR state = :state)
    AND (CAST(:agent AS TEXT) IS NULL OR agent = :agent)
    AND (CAST(:lane AS TEXT) IS NULL OR lane = :lane)
    AND (CAST(:tenant AS TEXT) IS NULL OR tenant = :tenant)
    AND (CAST(:version AS TEXT) IS NULL OR substr(fingerprint, 1, length(CAST(:version AS TEXT))) = :version)
    AND (CAST(:created_after AS BIGINT) IS NULL OR created_at >= :created_after)
    AND (CAST(:created_before AS BIGINT) IS NULL OR created_at < :created_before)
    AND (CAST(:text AS TEXT) IS NULL OR lower(input) LIKE :text ESCAPE '!' OR lower(error) LIKE :text ESCAPE '!')
ORDER BY id DESC
LIMIT :limit

-- name: list_runs_of_agent
SELECT id, tenant, agent, lane, priority, state, available_at, attempt, failures, losses, max_attempts, parent_id,
    root_id, cancel_requested_at, progress_done, progress_total, dismissed_at, created_at, started_at, finished_at,
    deadline_at, error, idempotency_key, fingerprint
FROM runs
WHERE id < :before AND id >= :floor
    AND agent = :agent
    AND (CAST(:state AS TEXT) IS NULL OR state = :state)
    AND (CAST(:lane AS TEXT) IS NULL OR lane = :lane)
    AND (CAST(:tenant AS TEXT) IS NULL OR tenant = :tenant)
    AND (CAST(:version AS TEXT) IS NULL OR substr(fingerprint, 1, length(CAST(:version AS TEXT))) = :version)
    AND (CAST(:created_after AS BIGINT) IS NULL OR created_at >= :created_after)
    AND (CAST(:created_before AS BIGINT) IS NULL OR created_at < :created_before)
    AND (CAST(:text AS TEXT) IS NULL OR lower(input) LIKE :text ESCAPE '!' OR lower(error) LIKE :text ESCAPE '!')
ORDER BY id DESC
LIMIT :limit

-- name: list_few_runs_of_agent
-- Of an agent that has few before this one. A plan that knows nothing of the agent would walk over all runs for them.
WITH own AS MATERIALIZED (
    SELECT id FROM runs WHERE agent = :agent AND id < :before AND id >= :floor ORDER BY id DESC LIMIT 5000
)
SELECT runs.id, tenant, agent, lane, priority, state, available_at, attempt, failures, losses, max_attempts, parent_id,
    root_id, cancel_requested_at, progress_done, progress_total, dismissed_at, created_at, started_at, finished_at,
    deadline_at, error, idempotency_key, fingerprint
FROM own JOIN runs ON runs.id = own.id
WHERE (CAST(:state AS TEXT) IS NULL OR state = :state)
    AND (CAST(:lane AS TEXT) IS NULL OR lane = :lane)
    AND (CAST(:tenant AS TEXT) IS NULL OR tenant = :tenant)
    AND (CAST(:version AS TEXT) IS NULL OR substr(fingerprint, 1, length(CAST(:version AS TEXT))) = :version)
    AND (CAST(:created_after AS BIGINT) IS NULL OR created_at >= :created_after)
    AND (CAST(:created_before AS BIGINT) IS NULL OR created_at < :created_before)
    AND (CAST(:text AS TEXT) IS NULL OR lower(input) LIKE :text ESCAPE '!' OR lower(error) LIKE :text ESCAPE '!')
ORDER BY runs.id DESC
LIMIT :limit

-- name: list_runs_of_tenant
-- Most runs are of the default tenant, so it is not in the index.
SELECT id, tenant, agent, lane, priority, state, available_at, attempt, failures, losses, max_attempts, parent_id,
    root_id, cancel_requested_at, progress_done, progress_total, dismissed_at, created_at, started_at, finished_at,
    deadline_at, error, idempotency_key, fingerprint
FROM runs
WHERE id < :before AND id >= :floor
    AND tenant = :tenant AND tenant <> 'default'
    AND (CAST(:state AS TEXT) IS NULL OR state = :state)
    AND (CAST(:agent AS TEXT) IS NULL OR agent = :agent)
    AND (CAST(:lane AS TEXT) IS NULL OR lane = :lane)
    AND (CAST(:version AS TEXT) IS NULL OR substr(fingerprint, 1, length(CAST(:version AS TEXT))) = :version)
    AND (CAST(:created_after AS BIGINT) IS NULL OR created_at >= :created_after)
    AND (CAST(:created_before AS BIGINT) IS NULL OR created_at < :created_before)
    AND (CAST(:text AS TEXT) IS NULL OR lower(input) LIKE :text ESCAPE '!' OR lower(error) LIKE :text ESCAPE '!')
ORDER BY id DESC
LIMIT :limit

-- name: list_seldom_runs
-- In the states that few runs are in.
SELECT id, tenant, agent, lane, priority, state, available_at, attempt, failures, losses, max_attempts, parent_id,
    root_id, cancel_requested_at, progress_done, progress_total, dismissed_at, created_at, started_at, finished_at,
    deadline_at, error, idempotency_key, fingerprint
FROM runs
WHERE id < :before AND id >= :floor
    AND state = :state AND state IN ('failed', 'cancelled', 'waiting')
    AND (CAST(:agent AS TEXT) IS NULL OR agent = :agent)
    AND (CAST(:lane AS TEXT) IS NULL OR lane = :lane)
    AND (CAST(:tenant AS TEXT) IS NULL OR tenant = :tenant)
    AND (CAST(:version AS TEXT) IS NULL OR substr(fingerprint, 1, length(CAST(:version AS TEXT))) = :version)
    AND (CAST(:created_after AS BIGINT) IS NULL OR created_at >= :created_after)
    AND (CAST(:created_before AS BIGINT) IS NULL OR created_at < :created_before)
    AND (CAST(:text AS TEXT) IS NULL OR lower(input) LIKE :text ESCAPE '!' OR lower(error) LIKE :text ESCAPE '!')
ORDER BY id DESC
LIMIT :limit

-- name: list_running_runs
-- By their attempts: no index of runs is written anew for each claim.
SELECT id, tenant, agent, lane, priority, state, available_at, attempt, failures, losses, max_attempts, parent_id,
    root_id, cancel_requested_at, progress_done, progress_total, dismissed_at, created_at, started_at, finished_at,
    deadline_at, error, idempotency_key, fingerprint
FROM runs
WHERE id < :before AND id >= :floor
    AND id IN (SELECT attempts.run_id FROM attempts WHERE attempts.state = 'running') AND state = 'running'
    AND (CAST(:agent AS TEXT) IS NULL OR agent = :agent)
    AND (CAST(:lane AS TEXT) IS NULL OR lane = :lane)
    AND (CAST(:tenant AS TEXT) IS NULL OR tenant = :tenant)
    AND (CAST(:version AS TEXT) IS NULL OR substr(fingerprint, 1, length(CAST(:version AS TEXT))) = :version)
    AND (CAST(:created_after AS BIGINT) IS NULL OR created_at >= :created_after)
    AND (CAST(:created_before AS BIGINT) IS NULL OR created_at < :created_before)
    AND (CAST(:text AS TEXT) IS NULL OR lower(input) LIKE :text ESCAPE '!' OR lower(error) LIKE :text ESCAPE '!')
ORDER BY id DESC
LIMIT :limit

-- name: list_queued_runs
-- For a queue that is not deep.
SELECT id, tenant, agent, lane, priority, state, available_at, attempt, failures, losses, max_attempts, parent_id,
    root_id, cancel_requested_at, progress_done, progress_total, dismissed_at, created_at, started_at, finished_at,
    deadline_at, error, idempotency_key, fingerprint
FROM runs
WHERE id < :before AND id >= :floor
    AND id IN (SELECT queued.id FROM runs AS queued WHERE queued.available_at IS NOT NULL LIMIT :deep)
    AND (CAST(:state AS TEXT) IS NULL OR state = :state)
    AND (CAST(:agent AS TEXT) IS NULL OR agent = :agent)
    AND (CAST(:lane AS TEXT) IS NULL OR lane = :lane)
    AND (CAST(:tenant AS TEXT) IS NULL OR tenant = :tenant)
    AND (CAST(:version AS TEXT) IS NULL OR substr(fingerprint, 1, length(CAST(:version AS TEXT))) = :version)
    AND (CAST(:created_after AS BIGINT) IS NULL OR created_at >= :created_after)
    AND (CAST(:created_before AS BIGINT) IS NULL OR created_at < :created_before)
    AND (CAST(:text AS TEXT) IS NULL OR lower(input) LIKE :text ESCAPE '!' OR lower(error) LIKE :text ESCAPE '!')
ORDER BY id DESC
LIMIT :limit

-- name: list_children
SELECT id, tenant, agent, lane, priority, state, available_at, attempt, failures, losses, max_attempts, parent_id,
    root_id, cancel_requested_at, progress_done, progress_total, dismissed_at, created_at, started_at, finished_at,
    deadline_at, error, idempotency_key, fingerprint
FROM runs
WHERE id < :before AND id >= :floor
    AND parent_id = :parent_id
    AND (CAST(:state AS TEXT) IS NULL OR state = :state)
    AND (CAST(:agent AS TEXT) IS NULL OR agent = :agent)
    AND (CAST(:lane AS TEXT) IS NULL OR lane = :lane)
    AND (CAST(:tenant AS TEXT) IS NULL OR tenant = :tenant)
    AND (CAST(:version AS TEXT) IS NULL OR substr(fingerprint, 1, length(CAST(:version AS TEXT))) = :version)
    AND (CAST(:created_after AS BIGINT) IS NULL OR created_at >= :created_after)
    AND (CAST(:created_before AS BIGINT) IS NULL OR created_at < :created_before)
    AND (CAST(:text AS TEXT) IS NULL OR lower(input) LIKE :text ESCAPE '!' OR lower(error) LIKE :text ESCAPE '!')
ORDER BY id DESC
LIMIT :limit

-- name: floor_of_runs
-- Where a walk over so many entries of an index ends.
SELECT id FROM runs WHERE id < :before ORDER BY id DESC LIMIT 1 OFFSET :window

-- name: floor_of_agent
SELECT id FROM runs WHERE agent = :agent AND id < :before ORDER BY id DESC LIMIT 1 OFFSET :window

-- name: floor_of_tenant
SELECT id FROM runs WHERE tenant = :tenant AND tenant <> 'default' AND id < :before ORDER BY id DESC LIMIT 1 OFFSET :window

-- name: floor_of_seldom_runs
SELECT id FROM runs WHERE state = :state AND state IN ('failed', 'cancelled', 'waiting') AND id < :before ORDER BY id DESC LIMIT 1 OFFSET :window

-- name: queue_depth
-- As far as it is counted.
SELECT count(*) AS depth FROM (SELECT 1 AS one FROM runs WHERE available_at IS NOT NULL LIMIT :deep) AS queued

-- name: inputs_of_runs
-- How they begin.
SELECT runs.id, substr(runs.input, 1, 300) AS input FROM @rows(id text) AS item JOIN runs ON runs.id = item.id
