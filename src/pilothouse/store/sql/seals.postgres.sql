-- name: seal_horizon
-- A number is taken before its commit: records up to `seq` are final once nothing runs that ran before `running_until`.
SELECT last_value AS seq, pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS running_until,
    pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS running_from
FROM audit_seq_seq
