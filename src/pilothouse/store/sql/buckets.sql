-- name: add_buckets
INSERT INTO buckets (name, due_at, blocked_until, reason)
SELECT item.name, 0, 0, '' FROM @rows(name text) AS item WHERE true
ON CONFLICT (name) DO NOTHING

-- name: buckets_by_name
SELECT buckets.name, buckets.due_at, buckets.blocked_until, :now AS now FROM buckets
WHERE buckets.name IN (SELECT item.name FROM @rows(name text) AS item)
ORDER BY buckets.name

-- name: set_buckets
UPDATE buckets SET due_at = item.due_at
FROM @rows(name text, due_at bigint) AS item
WHERE buckets.name = item.name

-- name: block_bucket
INSERT INTO buckets (name, due_at, blocked_until, reason)
VALUES (:name, 0, :now + CAST(:blocked_us AS BIGINT), :reason)
ON CONFLICT (name) DO UPDATE SET blocked_until = excluded.blocked_until, reason = excluded.reason
WHERE buckets.blocked_until < excluded.blocked_until

-- name: blocked_buckets
SELECT name, blocked_until, reason, :now AS now FROM buckets WHERE blocked_until > :now
