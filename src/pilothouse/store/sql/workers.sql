-- name: insert_worker
INSERT INTO workers (id, host, pid, state, app, agents, state_versions, slots, version, is_enabled,
    started_at, renewed_at, lease_until)
VALUES (:id, :host, :pid, 'running', :app, :agents, :state_versions, :slots, :version, :is_enabled, :now, :now,
    :now + CAST(:lease_us AS BIGINT))

-- name: renew_worker
-- Zero rows: the lease was reaped, and everything this worker still runs belongs to others.
UPDATE workers
SET renewed_at = :now, lease_until = :now + CAST(:lease_us AS BIGINT)
WHERE id = :id AND state IN ('running', 'draining')
RETURNING state

-- name: fence_worker
-- Every write of a worker happens under its own row, which the reaper takes before it gives the attempts away.
SELECT id FROM workers WHERE id = :id AND state IN ('running', 'draining')

-- name: drain_worker
UPDATE workers SET state = 'draining' WHERE id = :id AND state = 'running' RETURNING id

-- name: stop_worker
UPDATE workers SET state = 'stopped', stopped_at = :now WHERE id = :id AND state IN ('running', 'draining') RETURNING id

-- name: expired_workers
SELECT id FROM workers
WHERE state IN ('running', 'draining') AND lease_until < :now
ORDER BY id LIMIT :limit

-- name: rebase_leases
-- The clock was set back: leases that were renewed in what is now the future last as long from now on.
UPDATE workers SET lease_until = :now + (lease_until - renewed_at), renewed_at = :now
WHERE state IN ('running', 'draining') AND renewed_at > :now + 1000000

-- name: lose_worker
UPDATE workers SET state = 'lost', stopped_at = :now
WHERE id = :id AND state IN ('running', 'draining') AND lease_until < :now
RETURNING id

-- name: list_workers
-- Live ones first, then the latest of the others.
SELECT workers.*, :now AS now,
    (SELECT count(*) FROM attempts WHERE attempts.worker_id = workers.id AND attempts.state = 'running') AS running
FROM workers
ORDER BY CASE WHEN state IN ('running', 'draining') THEN 0 ELSE 1 END, started_at DESC, id
LIMIT :limit

-- name: worker_by_id
SELECT * FROM workers WHERE id = :id

-- name: expire_worker
UPDATE workers SET lease_until = 0 WHERE id = :id AND state IN ('running', 'draining')

-- name: attempts_of_workers
-- What runs now, the longest first.
SELECT attempts.worker_id, attempts.run_id, attempts.number, attempts.started_at, runs.agent, runs.lane
FROM attempts JOIN runs ON runs.id = attempts.run_id
WHERE attempts.state = 'running'
ORDER BY attempts.started_at LIMIT :limit

-- name: switch_epoch
SELECT epoch FROM switch_epochs
