-- name: list_unsettled
-- Held, though the attempt that made them has ended: nobody knows yet what their calls have cost. The oldest first.
SELECT reservations.*, runs.state AS run_state FROM reservations LEFT JOIN runs ON runs.id = reservations.run_id
WHERE reservations.state = 'held'
    AND (runs.id IS NULL OR runs.state <> 'running' OR runs.attempt <> reservations.attempt)
    AND (CAST(:tenant AS TEXT) IS NULL OR reservations.tenant = :tenant)
    AND (CAST(:run_id AS TEXT) IS NULL OR reservations.run_id = :run_id)
ORDER BY reservations.created_at, reservations.id LIMIT :limit

-- name: reservation_by_id
-- `is_held_by_run`: the attempt that made it still runs.
SELECT reservations.*,
    CASE WHEN runs.state = 'running' AND runs.attempt = reservations.attempt THEN 1 ELSE 0 END AS is_held_by_run
FROM reservations LEFT JOIN runs ON runs.id = reservations.run_id
WHERE reservations.id = :id

-- name: forget_reservations
-- Those of runs that are not in the run log any more; what they came to stays in the ledger.
DELETE FROM reservations
WHERE state = 'settled' AND id IN (SELECT item.id FROM @rows(id text) AS item)
    AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.id = reservations.run_id)

-- name: prune_reservations
-- What is still held stays until somebody settles it: the money may have been spent.
DELETE FROM reservations
WHERE state = 'settled' AND run_id IN (SELECT item.id FROM @rows(id text) AS item)
