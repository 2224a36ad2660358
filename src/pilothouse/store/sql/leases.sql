-- name: hold_lease
-- Takes the lease, or extends one's own; no row comes back while another holder's has not run out. One that lasts
-- longer than it can (a second is allowed for) is of before the clock was set back, and its holder may be gone.
INSERT INTO leases (name, holder, lease_until, held_at)
VALUES (:name, :holder, :now + CAST(:lease_us AS BIGINT), :now)
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, lease_until = excluded.lease_until,
    held_at = excluded.held_at
WHERE leases.holder = excluded.holder OR leases.lease_until < :now
    OR leases.lease_until > excluded.lease_until + 1000000
RETURNING holder

-- name: release_lease
DELETE FROM leases WHERE name = :name AND holder = :holder

-- name: list_leases
SELECT name, holder, lease_until, held_at, :now AS now FROM leases ORDER BY name

-- name: prove_writable
-- A write that is durable once it is done; at most one a second, however many ask. Nobody reads it.
INSERT INTO leases (name, holder, lease_until, held_at) VALUES (:name, :name, :now, :now)
ON CONFLICT (name) DO UPDATE SET lease_until = excluded.lease_until, held_at = excluded.held_at
WHERE leases.held_at < excluded.held_at - 1000000
