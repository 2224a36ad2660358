-- name: insert_key
INSERT INTO api_keys (id, name, role, tenant, secret_hash, created_at, created_by, expires_at)
VALUES (:id, :name, :role, :tenant, :secret_hash, :now, :created_by, :expires_at)

-- name: key_by_id
SELECT api_keys.*, :now AS now FROM api_keys WHERE id = :id

-- name: hold_key
-- As it stands until this transaction has ended: whoever revokes it comes before or after.
SELECT api_keys.*, :now AS now FROM api_keys WHERE id = :id

-- name: active_key_of_name
SELECT id FROM api_keys
WHERE name = :name AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > :now) LIMIT 1

-- name: list_keys
SELECT id, name, role, tenant, created_at, created_by, expires_at, last_used_at, revoked_at, :now AS now
FROM api_keys ORDER BY id

-- name: active_key
-- Any key that opens something.
SELECT id FROM api_keys WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > :now) LIMIT 1

-- name: revoke_key
UPDATE api_keys SET revoked_at = :now WHERE id = :id AND revoked_at IS NULL RETURNING id

-- name: note_key_use
UPDATE api_keys SET last_used_at = :now
WHERE id = :id AND (last_used_at IS NULL OR last_used_at < :now - CAST(:spacing_us AS BIGINT))
