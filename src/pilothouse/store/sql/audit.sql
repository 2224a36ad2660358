-- name: insert_audit
INSERT INTO audit (at, tenant, principal, action, entity, entity_id, before, after, reason, run_id, attempt)
SELECT :now, item.tenant, item.principal, item.action, item.entity, item.entity_id, item.before, item.after,
    item.reason, item.run_id, item.attempt
FROM @rows(tenant text, principal text, action text, entity text, entity_id text, before text, after text,
    reason text, run_id text, attempt integer) AS item

-- name: audit_of_entity
SELECT seq, at, tenant, principal, action, entity, entity_id, before, after, reason, run_id, attempt
FROM audit WHERE entity_id = :entity_id AND seq > :after ORDER BY seq LIMIT :limit

-- name: list_audit
-- Oldest first, from one place in the record to another.
SELECT seq, at, tenant, principal, action, entity, entity_id, before, after, reason, run_id, attempt
FROM audit
WHERE seq > :after AND seq <= :last
    AND (CAST(:action AS TEXT) IS NULL OR action = :action)
    AND (CAST(:tenant AS TEXT) IS NULL OR tenant = :tenant)
ORDER BY seq LIMIT :limit

-- name: audit_end
SELECT coalesce(max(seq), 0) AS seq FROM audit

-- name: audit_begin
SELECT coalesce(min(seq), 0) AS seq FROM audit

-- name: audit_writers
-- On SQLite whatever is seen is final.
SELECT '' AS writer WHERE 0

-- name: tail_audit
-- Newest first.
SELECT seq, at, tenant, principal, action, entity, entity_id, before, after, reason, run_id, attempt
FROM audit
WHERE (CAST(:before AS BIGINT) IS NULL OR seq < :before)
    AND (CAST(:action AS TEXT) IS NULL OR action = :action)
    AND (CAST(:tenant AS TEXT) IS NULL OR tenant = :tenant)
    AND (CAST(:entity_id AS TEXT) IS NULL OR entity_id = :entity_id)
ORDER BY seq DESC LIMIT :limit

-- name: search_audit
-- Newest first, among the records from `oldest` on.
SELECT seq, at, tenant, principal, action, entity, entity_id, before, after, reason, run_id, attempt
FROM audit
WHERE seq < :before AND seq >= :oldest
    AND (CAST(:action AS TEXT) IS NULL OR action = :action)
    AND (CAST(:principal AS TEXT) IS NULL OR principal = :principal)
    AND (CAST(:tenant AS TEXT) IS NULL OR tenant = :tenant)
ORDER BY seq DESC LIMIT :limit

-- name: search_audit_of_entity
SELECT seq, at, tenant, principal, action, entity, entity_id, before, after, reason, run_id, attempt
FROM audit
WHERE entity_id = :entity_id AND seq < :before
    AND (CAST(:action AS TEXT) IS NULL OR action = :action)
    AND (CAST(:principal AS TEXT) IS NULL OR principal = :principal)
    AND (CAST(:tenant AS TEXT) IS NULL OR tenant = :tenant)
ORDER BY seq DESC LIMIT :limit

-- name: audit_by_seq
SELECT seq, at, tenant, principal, action, entity, entity_id, before, after, reason, run_id, attempt
FROM audit WHERE seq = :seq


-- name: last_suspension
SELECT reason FROM audit WHERE entity_id = :run_id AND action = 'run.suspended' ORDER BY seq DESC LIMIT 1
