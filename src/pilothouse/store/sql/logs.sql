-- name: insert_logs
INSERT INTO run_logs (run_id, attempt, at, level, message, fields)
SELECT item.run_id, item.attempt, item.at, item.level, item.message, item.fields
FROM @rows(run_id text, attempt integer, at bigint, level text, message text, fields text) AS item

-- name: logs_of_run
SELECT * FROM run_logs WHERE run_id = :run_id AND id > :after ORDER BY id LIMIT :limit
