-- name: last_seal
SELECT * FROM audit_seals ORDER BY number DESC LIMIT 1

-- name: insert_seal
INSERT INTO audit_seals (number, first_seq, last_seq, records, root, leaves, previous, hash, sealed_at)
VALUES (:number, :first_seq, :last_seq, :records, :root, :leaves, :previous, :hash, :sealed_at)

-- name: seals_after
SELECT * FROM audit_seals WHERE number > :number ORDER BY number LIMIT :limit

-- name: audit_span
SELECT seq, at, tenant, principal, action, entity, entity_id, before, after, reason, run_id, attempt
FROM audit WHERE seq >= :first_seq AND seq <= :last_seq ORDER BY seq LIMIT :limit
