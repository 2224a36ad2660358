-- name: last_seal
SELECT number, first_seq, last_seq, records, root, leaves, previous, hash, sealed_at, pruned_through
FROM audit_seals ORDER BY number DESC LIMIT 1

-- name: insert_seal
INSERT INTO audit_seals (number, first_seq, last_seq, records, root, leaves, previous, hash, sealed_at)
VALUES (:number, :first_seq, :last_seq, :records, :root, :leaves, :previous, :hash, :sealed_at)

-- name: seals_after
SELECT number, first_seq, last_seq, records, root, leaves, previous, hash, sealed_at, pruned_through
FROM audit_seals WHERE number > :number ORDER BY number LIMIT :limit

-- name: kept_seals
-- The oldest seals whose records are there, and the latest instant of each and of its records.
SELECT number, first_seq, last_seq, records, (
    SELECT max(at) FROM (
        SELECT at FROM audit WHERE seq >= audit_seals.first_seq AND seq <= audit_seals.last_seq
        UNION ALL SELECT audit_seals.sealed_at
    ) AS instants
) AS through
FROM audit_seals WHERE pruned_through IS NULL ORDER BY number LIMIT :limit

-- name: prune_seals
UPDATE audit_seals SET pruned_through = :through WHERE number >= :first AND number <= :last AND pruned_through IS NULL

-- name: prune_audit
DELETE FROM audit WHERE seq >= :first_seq AND seq <= :last_seq

-- name: audit_span
SELECT seq, at, tenant, principal, action, entity, entity_id, before, after, reason, run_id, attempt
FROM audit WHERE seq >= :first_seq AND seq <= :last_seq ORDER BY seq LIMIT :limit

-- name: tombstones_of_span
-- Of records that were erased, as far as any of a batch is in the span.
SELECT tombstones FROM erased_records WHERE last_seq >= :first_seq AND first_seq <= :last_seq ORDER BY first_seq, id

-- name: erasure_vouchers
SELECT seq, at, principal, entity_id, reason FROM audit WHERE action = :action AND entity = 'tenant' ORDER BY seq

-- name: prune_tombstones
DELETE FROM erased_records WHERE last_seq <= :last_seq
