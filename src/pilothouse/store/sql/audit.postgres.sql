-- name: list_audit
SELECT seq, at, tenant, principal, action, entity, entity_id, before, after, reason, run_id, attempt
FROM audit
WHERE seq > :after
    AND written_by < pg_snapshot_xmin(pg_current_snapshot())
    AND (CAST(:action AS TEXT) IS NULL OR action = :action)
    AND (CAST(:tenant AS TEXT) IS NULL OR tenant = :tenant)
ORDER BY seq LIMIT :limit
