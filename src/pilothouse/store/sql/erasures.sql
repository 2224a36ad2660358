-- name: insert_erasure
INSERT INTO erasures (id, tenant, state, requested_by, reason, pseudonym_key, started_at)
VALUES (:id, :tenant, 'under_way', :requested_by, :reason, :pseudonym_key, :now)

-- name: latest_erasure
SELECT * FROM erasures WHERE tenant = :tenant ORDER BY started_at DESC, id DESC LIMIT 1

-- name: erasures_under_way
SELECT id FROM erasures WHERE state = 'under_way' ORDER BY started_at, id LIMIT :limit

-- name: erasure_by_id
SELECT * FROM erasures WHERE id = :id

-- name: lock_erasure
-- The lock keeps two who carry on one erasure from counting the same rows twice.
SELECT * FROM erasures WHERE id = :id

-- name: count_erased
UPDATE erasures SET runs = runs + :runs, records = records + :records WHERE id = :id AND state = 'under_way'

-- name: finish_erasure
UPDATE erasures SET state = 'done', finished_at = :now, pseudonym_key = NULL WHERE id = :id AND state = 'under_way'

-- name: shut_keys
UPDATE api_keys SET revoked_at = :now WHERE tenant = :tenant AND revoked_at IS NULL

-- name: shut_schedules
UPDATE schedules SET paused_at = :now WHERE tenant = :tenant AND paused_at IS NULL

-- name: open_runs
SELECT count(*) AS found FROM runs WHERE tenant = :tenant AND state IN ('queued', 'waiting', 'running')

-- name: uncancelled_runs
SELECT id FROM runs
WHERE tenant = :tenant
    AND (state IN ('queued', 'waiting') OR (state = 'running' AND cancel_requested_at IS NULL))
ORDER BY id LIMIT :limit

-- name: runs_to_erase
SELECT id FROM runs WHERE tenant = :tenant AND id > :after ORDER BY id LIMIT :limit

-- name: ended_runs
SELECT runs.id, runs.tenant, runs.agent, runs.lane, runs.state
FROM @rows(id text) AS item JOIN runs ON runs.id = item.id
WHERE runs.state IN ('succeeded', 'failed', 'cancelled')

-- name: blobs_of_runs
SELECT DISTINCT hash FROM blob_references WHERE run_id IN (SELECT item.id FROM @rows(id text) AS item)

-- name: lock_blobs
-- On SQLite the writer is alone anyway.
SELECT item.hash FROM @rows(hash text) AS item WHERE false

-- name: erase_blobs
-- What another run still refers to, of whatever tenant, stays.
DELETE FROM blobs
WHERE hash IN (SELECT item.hash FROM @rows(hash text) AS item)
    AND NOT EXISTS (SELECT 1 FROM blob_references WHERE blob_references.hash = blobs.hash)

-- name: erase_run_limits
DELETE FROM limits WHERE scope IN (SELECT 'run:' || item.id FROM @rows(id text) AS item)

-- name: erase_tenant_limits
DELETE FROM limits WHERE scope = 'tenant:' || CAST(:tenant AS TEXT)

-- name: erase_votes
DELETE FROM approval_votes WHERE (approval_id, principal) IN (
    SELECT approval_votes.approval_id, approval_votes.principal
    FROM approval_votes JOIN approvals ON approvals.id = approval_votes.approval_id
    WHERE approvals.tenant = :tenant LIMIT :limit)

-- name: erase_approvals
DELETE FROM approvals WHERE id IN (SELECT id FROM approvals WHERE tenant = :tenant LIMIT :limit)

-- name: erase_effects
DELETE FROM effects WHERE id IN (SELECT id FROM effects WHERE tenant = :tenant LIMIT :limit)

-- name: erase_alerts
DELETE FROM alerts WHERE id IN (SELECT id FROM alerts WHERE tenant = :tenant LIMIT :limit)

-- name: erase_incidents
DELETE FROM incidents WHERE id IN (SELECT id FROM incidents WHERE tenant = :tenant LIMIT :limit)

-- name: erase_incident_effects
DELETE FROM incident_effects WHERE (incident_id, effect_id) IN (
    SELECT incident_id, effect_id FROM incident_effects WHERE tenant = :tenant LIMIT :limit)

-- name: erase_corrections
DELETE FROM corrections WHERE id IN (SELECT id FROM corrections WHERE tenant = :tenant LIMIT :limit)

-- name: erase_cases
DELETE FROM cases WHERE id IN (SELECT id FROM cases WHERE tenant = :tenant LIMIT :limit)

-- name: erase_memories
DELETE FROM memories WHERE (tenant, agent, name) IN (
    SELECT tenant, agent, name FROM memories WHERE tenant = :tenant LIMIT :limit)

-- name: erase_model_answers
DELETE FROM model_answers WHERE (tenant, question) IN (
    SELECT tenant, question FROM model_answers WHERE tenant = :tenant LIMIT :limit)

-- name: erase_schedules
DELETE FROM schedules WHERE name IN (SELECT name FROM schedules WHERE tenant = :tenant LIMIT :limit)

-- name: erase_keys
DELETE FROM api_keys WHERE id IN (SELECT id FROM api_keys WHERE tenant = :tenant LIMIT :limit)

-- name: ledger_of_tenant
SELECT seq, reservation_id, run_id, user_id FROM ledger
WHERE tenant = :tenant AND seq > :after ORDER BY seq LIMIT :limit

-- name: entries_of_reservations
SELECT ledger.seq, ledger.reservation_id, ledger.run_id, ledger.user_id
FROM @rows(id text, run_id text) AS item
JOIN ledger ON ledger.run_id = item.run_id AND ledger.reservation_id = item.id

-- name: rename_ledger
UPDATE ledger
SET tenant = item.tenant, run_id = item.run_id, user_id = item.user_id, reservation_id = item.reservation_id,
    reason = NULL
FROM @rows(seq bigint, tenant text, run_id text, user_id text, reservation_id text) AS item
WHERE ledger.seq = item.seq

-- name: reservations_of_tenant
SELECT id, run_id, user_id FROM reservations WHERE tenant = :tenant AND id > :after ORDER BY id LIMIT :limit

-- name: rename_reservations
UPDATE reservations
SET id = item.new_id, tenant = item.tenant, run_id = item.run_id, user_id = item.user_id, key = ''
FROM @rows(id text, new_id text, tenant text, run_id text, user_id text) AS item
WHERE reservations.id = item.id

-- name: drop_balances
DELETE FROM balances WHERE account IN (SELECT item.account FROM @rows(account text) AS item)

-- name: audit_of_tenant
SELECT seq, at, tenant, principal, action, entity, entity_id, before, after, reason, run_id, attempt
FROM audit WHERE tenant = :tenant AND seq > :after ORDER BY seq LIMIT :limit

-- name: erase_records
-- As `domain.seals.erase` does it.
UPDATE audit SET tenant = '', principal = 'erased', entity_id = 'erased', reason = NULL, run_id = NULL
WHERE seq IN (SELECT item.seq FROM @rows(seq bigint) AS item)

-- name: insert_tombstones
INSERT INTO erased_records (id, erasure_id, first_seq, last_seq, tombstones)
VALUES (:id, :erasure_id, :first_seq, :last_seq, :tombstones)

-- name: forget_counters
DELETE FROM counters WHERE name IN ('queued', 'running') AND agent = '' AND label = :tenant RETURNING name, lane, value

-- name: rest_of_tenant
-- In which tables there still is something of a tenant.
SELECT name FROM (
    SELECT 'runs' AS name, EXISTS (SELECT 1 FROM runs WHERE tenant = :tenant) AS is_there
    UNION ALL SELECT 'effects', EXISTS (SELECT 1 FROM effects WHERE tenant = :tenant)
    UNION ALL SELECT 'incidents', EXISTS (SELECT 1 FROM incidents WHERE tenant = :tenant)
    UNION ALL SELECT 'incident_effects', EXISTS (SELECT 1 FROM incident_effects WHERE tenant = :tenant)
    UNION ALL SELECT 'corrections', EXISTS (SELECT 1 FROM corrections WHERE tenant = :tenant)
    UNION ALL SELECT 'cases', EXISTS (SELECT 1 FROM cases WHERE tenant = :tenant)
    UNION ALL SELECT 'approvals', EXISTS (SELECT 1 FROM approvals WHERE tenant = :tenant)
    UNION ALL SELECT 'reservations', EXISTS (SELECT 1 FROM reservations WHERE tenant = :tenant)
    UNION ALL SELECT 'ledger', EXISTS (SELECT 1 FROM ledger WHERE tenant = :tenant)
    UNION ALL SELECT 'memories', EXISTS (SELECT 1 FROM memories WHERE tenant = :tenant)
    UNION ALL SELECT 'model_answers', EXISTS (SELECT 1 FROM model_answers WHERE tenant = :tenant)
    UNION ALL SELECT 'schedules', EXISTS (SELECT 1 FROM schedules WHERE tenant = :tenant)
    UNION ALL SELECT 'api_keys', EXISTS (SELECT 1 FROM api_keys WHERE tenant = :tenant)
    UNION ALL SELECT 'limits', EXISTS (SELECT 1 FROM limits WHERE scope = 'tenant:' || CAST(:tenant AS TEXT))
    UNION ALL SELECT 'balances', EXISTS (SELECT 1 FROM balances WHERE account = 'tenant:' || CAST(:tenant AS TEXT))
    UNION ALL SELECT 'audit', EXISTS (SELECT 1 FROM audit WHERE tenant = :tenant)
) AS looked_at
WHERE is_there
