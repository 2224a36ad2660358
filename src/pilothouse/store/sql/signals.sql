-- name: insert_signal
INSERT INTO signals (run_id, name, payload, principal, created_at)
VALUES (:run_id, :name, :payload, :principal, :now)
ON CONFLICT (run_id, name) DO NOTHING
RETURNING run_id

-- name: signals_of_run
SELECT * FROM signals WHERE run_id = :run_id ORDER BY created_at, name

-- name: signal_by_name
SELECT * FROM signals WHERE run_id = :run_id AND name = :name

-- name: delete_signals
DELETE FROM signals WHERE run_id IN (SELECT item.id FROM @rows(id text) AS item)

-- name: delete_answers
-- Whether calls of runs took place, which are now made again.
DELETE FROM signals WHERE (run_id, name) IN (
    SELECT checkpoints.run_id, replace(checkpoints.key, '.intent', '.happened')
    FROM checkpoints JOIN @rows(id text, since bigint) AS item ON item.id = checkpoints.run_id
    WHERE checkpoints.kind = 'intent' AND checkpoints.finished_at >= item.since)
