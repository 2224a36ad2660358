-- name: lock_limits
SELECT pg_advisory_xact_lock_shared(7305803342)

-- name: lock_limits_alone
SELECT pg_advisory_xact_lock(7305803342)

-- name: lock_balances
-- Held until the commit, in the order of the rows given: what two workers spend of an account, they spend one after the
-- other. One probe for each: of a join PostgreSQL may make a scan, while it has no statistics of a new table.
SELECT kept.* FROM @rows(account text, period text) AS item CROSS JOIN LATERAL (
    SELECT balances.* FROM balances
    WHERE balances.account = item.account AND balances.period = item.period
    FOR UPDATE) AS kept

-- name: keep_balances
SELECT kept.account FROM @rows(account text, period text) AS item CROSS JOIN LATERAL (
    SELECT balances.account FROM balances
    WHERE balances.account = item.account AND balances.period = item.period
    FOR UPDATE) AS kept

-- name: lock_reservations
-- Before any balance. Who settles the same one waits here, and then sees it settled.
SELECT kept.* FROM @rows(id text) AS item CROSS JOIN LATERAL (
    SELECT reservations.* FROM reservations WHERE reservations.id = item.id FOR UPDATE) AS kept

-- name: open_balances
-- As for SQLite, in the order of the rows given, and by one probe for each. Who opens the same balance waits here.
INSERT INTO balances (account, period, settled_microusd, settled_tokens, settled_actions, reserved_microusd,
    reserved_tokens, reserved_actions)
SELECT item.account, item.period, past.*
FROM @rows(account text, period text, run_id text) AS item CROSS JOIN LATERAL (
    SELECT coalesce(sum(settled_microusd), 0), coalesce(sum(settled_tokens), 0), coalesce(sum(settled_actions), 0),
        coalesce(sum(reserved_microusd), 0), coalesce(sum(reserved_tokens), 0), coalesce(sum(reserved_actions), 0)
    FROM ledger WHERE ledger.run_id = item.run_id) AS past
WHERE (SELECT 1 FROM balances WHERE balances.account = item.account AND balances.period = item.period) IS NULL
ON CONFLICT DO NOTHING
