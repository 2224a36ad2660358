-- name: lock_limits
-- Many may spend at once, but not while somebody sets a limit. On SQLite the writer is alone anyway.
SELECT 1 AS locked WHERE false

-- name: lock_limits_alone
SELECT 1 AS locked WHERE false

-- name: limits_in_force
-- The limits of these scopes, and of these attempts whether they hold their runs; with each row the instant and the latest
-- change of any limit.
SELECT (SELECT coalesce(max(epoch), 0) FROM limits) AS epoch, :now AS now, limits.scope, limits.period, limits.unit,
    limits.amount, item.run_id, item.attempt,
    (SELECT runs.state = 'running' AND runs.attempt = item.attempt FROM runs WHERE runs.id = item.run_id) AS holds_run
FROM @rows(scope text, run_id text, attempt integer) AS item LEFT JOIN limits ON limits.scope = item.scope
WHERE limits.scope IS NOT NULL OR item.scope IS NULL

-- name: keep_balances
-- Nobody else changes them until the commit. On SQLite the writer is alone anyway.
SELECT item.account FROM @rows(account text, period text) AS item WHERE false

-- name: lock_balances
SELECT balances.* FROM balances
WHERE (balances.account, balances.period) IN (
    SELECT item.account, item.period FROM @rows(account text, period text) AS item)

-- name: balances_of
SELECT balances.* FROM balances
WHERE (balances.account, balances.period) IN (
    SELECT item.account, item.period FROM @rows(account text, period text) AS item)

-- name: open_balances
-- A limit asks for them. A run's begins with what the ledger holds of it; any other with nothing: what a limit meets when
-- it is set is opened then.
INSERT INTO balances (account, period, settled_microusd, settled_tokens, settled_actions, reserved_microusd,
    reserved_tokens, reserved_actions)
SELECT item.account, item.period, coalesce(sum(ledger.settled_microusd), 0), coalesce(sum(ledger.settled_tokens), 0),
    coalesce(sum(ledger.settled_actions), 0), coalesce(sum(ledger.reserved_microusd), 0),
    coalesce(sum(ledger.reserved_tokens), 0), coalesce(sum(ledger.reserved_actions), 0)
FROM @rows(account text, period text, run_id text) AS item
LEFT JOIN ledger ON ledger.run_id = item.run_id
WHERE (SELECT 1 FROM balances WHERE balances.account = item.account AND balances.period = item.period) IS NULL
GROUP BY item.account, item.period
ON CONFLICT DO NOTHING

-- name: open_run_balances
-- Those of runs that may still spend, or whose reservations may still be settled.
INSERT INTO balances (account, period, settled_microusd, settled_tokens, settled_actions, reserved_microusd,
    reserved_tokens, reserved_actions)
SELECT 'run:' || ledger.run_id, 'run', sum(settled_microusd), sum(settled_tokens), sum(settled_actions),
    sum(reserved_microusd), sum(reserved_tokens), sum(reserved_actions)
FROM ledger
WHERE ledger.run_id IN (
    SELECT runs.id FROM runs WHERE runs.state IN ('queued', 'running', 'waiting')
    UNION SELECT reservations.run_id FROM reservations WHERE reservations.state = 'held')
    AND (CAST(:agent AS TEXT) IS NULL OR ledger.agent = :agent)
GROUP BY ledger.run_id
ON CONFLICT DO NOTHING

-- name: open_kind_balances
-- Of one account of a kind, or of all that have entries.
INSERT INTO balances (account, period, settled_microusd, settled_tokens, settled_actions, reserved_microusd,
    reserved_tokens, reserved_actions)
SELECT CASE WHEN CAST(:kind AS TEXT) = 'global' THEN 'global' ELSE CAST(:kind AS TEXT) || ':' || entries.name END,
    entries.period, sum(settled_microusd), sum(settled_tokens), sum(settled_actions), sum(reserved_microusd),
    sum(reserved_tokens), sum(reserved_actions)
FROM (
    SELECT CASE CAST(:kind AS TEXT) WHEN 'agent' THEN agent WHEN 'platform' THEN platform WHEN 'tenant' THEN tenant
            WHEN 'tool' THEN tool WHEN 'user' THEN user_id ELSE '' END AS name,
        CASE CAST(:by_day AS INTEGER) WHEN 1 THEN day ELSE month END AS period,
        settled_microusd, settled_tokens, settled_actions, reserved_microusd, reserved_tokens, reserved_actions
    FROM ledger
    WHERE month >= CAST(:since_month AS TEXT) AND (CAST(:by_day AS INTEGER) = 0 OR day >= CAST(:since_day AS TEXT))
) AS entries
WHERE entries.name IS NOT NULL AND (CAST(:name AS TEXT) IS NULL OR entries.name = CAST(:name AS TEXT))
GROUP BY entries.name, entries.period
ON CONFLICT DO NOTHING

-- name: add_to_balances
UPDATE balances SET
    settled_microusd = balances.settled_microusd + item.settled_microusd,
    settled_tokens = balances.settled_tokens + item.settled_tokens,
    settled_actions = balances.settled_actions + item.settled_actions,
    reserved_microusd = balances.reserved_microusd + item.reserved_microusd,
    reserved_tokens = balances.reserved_tokens + item.reserved_tokens,
    reserved_actions = balances.reserved_actions + item.reserved_actions
FROM @rows(account text, period text, settled_microusd bigint, settled_tokens bigint, settled_actions bigint,
    reserved_microusd bigint, reserved_tokens bigint, reserved_actions bigint) AS item
WHERE balances.account = item.account AND balances.period = item.period

-- name: insert_reservations
INSERT INTO reservations (id, state, run_id, key, attempt, tenant, agent, user_id, platform, tool, model, day, month,
    microusd, tokens, actions, created_at)
SELECT item.id, 'held', item.run_id, item.key, item.attempt, item.tenant, item.agent, item.user_id, item.platform,
    item.tool, item.model, item.day, item.month, item.microusd, item.tokens, item.actions, :now
FROM @rows(id text, run_id text, key text, attempt integer, tenant text, agent text, user_id text, platform text,
    tool text, model text, day text, month text, microusd bigint, tokens bigint, actions bigint) AS item

-- name: reservations_by_id
SELECT reservations.id FROM reservations
WHERE reservations.id IN (SELECT item.id FROM @rows(id text) AS item)

-- name: lock_reservations
SELECT reservations.* FROM reservations
WHERE reservations.id IN (SELECT item.id FROM @rows(id text) AS item)

-- name: settle_reservations
UPDATE reservations SET state = 'settled', settled_at = :now
FROM @rows(id text) AS item
WHERE reservations.id = item.id AND reservations.state = 'held'

-- name: insert_ledger
INSERT INTO ledger (at, kind, reservation_id, run_id, tenant, agent, user_id, platform, tool, model, day, month,
    settled_microusd, settled_tokens, settled_actions, reserved_microusd, reserved_tokens, reserved_actions, reason)
SELECT :now, item.kind, item.reservation_id, item.run_id, item.tenant, item.agent, item.user_id, item.platform,
    item.tool, item.model, item.day, item.month, item.settled_microusd, item.settled_tokens, item.settled_actions,
    item.reserved_microusd, item.reserved_tokens, item.reserved_actions, item.reason
FROM @rows(kind text, reservation_id text, run_id text, tenant text, agent text, user_id text, platform text, tool text,
    model text, day text, month text, settled_microusd bigint, settled_tokens bigint, settled_actions bigint,
    reserved_microusd bigint, reserved_tokens bigint, reserved_actions bigint, reason text) AS item

-- name: held_of_step
-- What the calls of a step have reserved, and nobody has settled.
SELECT * FROM reservations WHERE run_id = :run_id AND key = :key AND state = 'held' AND model IS NULL ORDER BY id
