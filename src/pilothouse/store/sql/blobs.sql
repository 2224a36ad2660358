-- name: keep_blobs
-- Using one anew writes its row: whoever wants to sweep it waits for that, and then leaves it.
INSERT INTO blobs (hash, payload, used_at)
SELECT item.hash, item.payload, :now FROM @rows(hash text, payload text) AS item WHERE true
ON CONFLICT (hash) DO UPDATE SET used_at = excluded.used_at

-- name: refer_to_blobs
INSERT INTO blob_references (run_id, hash)
SELECT item.run_id, item.hash FROM @rows(run_id text, hash text) AS item WHERE true
ON CONFLICT (run_id, hash) DO NOTHING

-- name: blobs_by_hash
SELECT blobs.hash, blobs.payload FROM @rows(hash text) AS item JOIN blobs ON blobs.hash = item.hash

-- name: release_blobs
DELETE FROM blob_references WHERE run_id IN (SELECT item.id FROM @rows(id text) AS item)

-- name: sweep_blobs
DELETE FROM blobs WHERE used_at < :now - CAST(:spared_us AS BIGINT) AND hash IN (
    SELECT hash FROM blobs
    WHERE used_at < :now - CAST(:spared_us AS BIGINT)
        AND NOT EXISTS (SELECT 1 FROM blob_references WHERE blob_references.hash = blobs.hash)
    LIMIT :limit)
