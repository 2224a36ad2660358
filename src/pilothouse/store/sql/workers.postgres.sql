-- name: fence_worker
SELECT id FROM workers WHERE id = :id AND state IN ('running', 'draining') FOR SHARE

-- name: expired_workers
SELECT id FROM workers
WHERE state IN ('running', 'draining') AND lease_until < :now
ORDER BY id LIMIT :limit
FOR UPDATE SKIP LOCKED
