-- name: insert_waits
-- Only what has not happened yet is waited for; the row of the run is locked by now.
INSERT INTO waits (run_id, kind, name, wait_group)
SELECT item.run_id, item.kind, item.name, item.wait_group
FROM @rows(run_id text, attempt integer, kind text, name text, wait_group text) AS item
JOIN runs ON runs.id = item.run_id
WHERE runs.state = 'waiting' AND runs.attempt = item.attempt
    AND NOT (item.kind = 'signal' AND EXISTS (
        SELECT 1 FROM signals WHERE signals.run_id = item.run_id AND signals.name = item.name))
    AND NOT (item.kind = 'child' AND EXISTS (
        SELECT 1 FROM runs AS child
        WHERE child.id = item.name AND child.state IN ('succeeded', 'failed', 'cancelled')))
    AND NOT (item.kind = 'switch' AND NOT EXISTS (SELECT 1 FROM switches WHERE switches.scope = item.name))
    AND (item.kind <> 'limit' OR item.name LIKE '%@' || (SELECT coalesce(max(limits.epoch), 0) FROM limits))
    AND NOT (item.kind = 'approval' AND EXISTS (
        SELECT 1 FROM approvals WHERE approvals.id = item.name AND approvals.state <> 'pending'))
ON CONFLICT DO NOTHING

-- name: release_waits
-- What was waited for has happened.
DELETE FROM waits
WHERE (run_id, kind, name) IN (SELECT item.run_id, item.kind, item.name FROM @rows(run_id text, kind text, name text) AS item)
RETURNING run_id, wait_group

-- name: delete_waits
-- The run is awake or has ended.
DELETE FROM waits WHERE run_id IN (SELECT item.id FROM @rows(id text) AS item)

-- name: waits_of_run
SELECT kind, name, wait_group FROM waits WHERE run_id = :run_id ORDER BY wait_group, kind, name
