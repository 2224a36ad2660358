-- name: audit_end
-- How far the numbers went. A number is taken before its commit: see audit_writers.
SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS seq FROM audit_seq_seq

-- name: audit_writers
-- The transactions that may have taken a number and not yet committed: an insert locks the table before it takes one.
SELECT virtualtransaction AS writer FROM pg_locks
WHERE locktype = 'relation' AND relation = 'audit'::regclass AND mode = 'RowExclusiveLock' AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
