-- name: owner_of_run
SELECT tenant FROM runs WHERE id = :name

-- name: owner_of_schedule
SELECT tenant FROM schedules WHERE name = :name

-- name: owner_of_approval
SELECT tenant FROM approvals WHERE id = :name

-- name: owner_of_effect
SELECT tenant FROM effects WHERE id = :name

-- name: owner_of_incident
SELECT tenant FROM incidents WHERE id = :name

-- name: owner_of_record
SELECT tenant FROM audit WHERE seq = :name

-- name: list_tenants
-- Whoever has, or had, anything here. What was counted once stays known when the runs have left the run log.
WITH names (tenant) AS (
    SELECT label FROM counters WHERE name IN ('queued', 'running') AND agent = ''
    UNION SELECT tenant FROM api_keys WHERE tenant IS NOT NULL
    UNION SELECT tenant FROM schedules
    UNION SELECT tenant FROM memories
    UNION SELECT tenant FROM erasures WHERE state = 'under_way'
), of_runs AS (
    SELECT tenant, count(*) AS runs, max(created_at) AS created_at, max(started_at) AS started_at,
        max(finished_at) AS finished_at
    FROM runs WHERE CAST(:tenant AS TEXT) IS NULL OR tenant = :tenant GROUP BY tenant
), of_queues AS (
    SELECT label AS tenant, CAST(sum(CASE WHEN name = 'queued' THEN value ELSE 0 END) AS BIGINT) AS queued,
        CAST(sum(CASE WHEN name = 'running' THEN value ELSE 0 END) AS BIGINT) AS running
    FROM counters WHERE name IN ('queued', 'running') AND agent = '' GROUP BY label
), of_keys AS (
    SELECT tenant, count(*) AS keys FROM api_keys WHERE tenant IS NOT NULL AND revoked_at IS NULL GROUP BY tenant
), of_schedules AS (
    SELECT tenant, count(*) AS schedules FROM schedules WHERE removed_at IS NULL GROUP BY tenant
)
SELECT names.tenant, coalesce(of_runs.runs, 0) AS runs, coalesce(of_queues.queued, 0) AS queued,
    coalesce(of_queues.running, 0) AS running, coalesce(of_keys.keys, 0) AS keys,
    coalesce(of_schedules.schedules, 0) AS schedules, of_runs.created_at, of_runs.started_at, of_runs.finished_at,
    EXISTS (SELECT 1 FROM erasures WHERE erasures.tenant = names.tenant AND state = 'under_way') AS is_erasing
FROM names
LEFT JOIN of_runs ON of_runs.tenant = names.tenant
LEFT JOIN of_queues ON of_queues.tenant = names.tenant
LEFT JOIN of_keys ON of_keys.tenant = names.tenant
LEFT JOIN of_schedules ON of_schedules.tenant = names.tenant
WHERE CAST(:tenant AS TEXT) IS NULL OR names.tenant = :tenant
ORDER BY names.tenant

-- name: glance_at_tenants
-- The same without their runs that have ended, which would be counted one by one.
WITH names (tenant) AS (
    SELECT label FROM counters WHERE name IN ('queued', 'running') AND agent = ''
    UNION SELECT tenant FROM api_keys WHERE tenant IS NOT NULL
    UNION SELECT tenant FROM schedules
    UNION SELECT tenant FROM memories
    UNION SELECT tenant FROM erasures WHERE state = 'under_way'
), of_queues AS (
    SELECT label AS tenant, CAST(sum(CASE WHEN name = 'queued' THEN value ELSE 0 END) AS BIGINT) AS queued,
        CAST(sum(CASE WHEN name = 'running' THEN value ELSE 0 END) AS BIGINT) AS running
    FROM counters WHERE name IN ('queued', 'running') AND agent = '' GROUP BY label
), of_keys AS (
    SELECT tenant, count(*) AS keys FROM api_keys WHERE tenant IS NOT NULL AND revoked_at IS NULL GROUP BY tenant
), of_schedules AS (
    SELECT tenant, count(*) AS schedules FROM schedules WHERE removed_at IS NULL GROUP BY tenant
)
SELECT names.tenant, coalesce(of_queues.queued, 0) AS queued,
    coalesce(of_queues.running, 0) AS running, coalesce(of_keys.keys, 0) AS keys,
    coalesce(of_schedules.schedules, 0) AS schedules,
    EXISTS (SELECT 1 FROM erasures WHERE erasures.tenant = names.tenant AND state = 'under_way') AS is_erasing
FROM names
LEFT JOIN of_queues ON of_queues.tenant = names.tenant
LEFT JOIN of_keys ON of_keys.tenant = names.tenant
LEFT JOIN of_schedules ON of_schedules.tenant = names.tenant
ORDER BY names.tenant

-- name: bytes_of_tenant
-- Of what its runs hold: inputs, outputs, results, and large payloads, each of these once.
SELECT coalesce((SELECT sum(length(input) + coalesce(length(output), 0)) FROM runs WHERE tenant = :tenant), 0)
    + coalesce((
        SELECT sum(coalesce(length(result), 0)) FROM checkpoints
        WHERE run_id IN (SELECT id FROM runs WHERE tenant = :tenant)), 0)
    + coalesce((
        SELECT sum(length(payload)) FROM blobs WHERE hash IN (
            SELECT hash FROM blob_references JOIN runs ON runs.id = blob_references.run_id
            WHERE runs.tenant = :tenant)), 0) AS characters
