-- name: buckets_by_name
-- Held until the commit, in one order: what two workers take is taken one after the other.
SELECT buckets.name, buckets.due_at, buckets.blocked_until, :now AS now FROM buckets
WHERE buckets.name IN (SELECT item.name FROM @rows(name text) AS item)
ORDER BY buckets.name FOR UPDATE
