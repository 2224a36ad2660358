-- name: balances_in_periods
-- What every account but those of single runs and of users has used in a day and a month.
SELECT balances.* FROM balances
WHERE (balances.account < 'run:' OR (balances.account >= 'run;' AND balances.account < 'user:')
        OR balances.account >= 'user;')
    AND (balances.period = :day OR balances.period = :month)

-- name: balances_of_users
-- The users who have used the most in a day and a month.
SELECT balances.* FROM balances
WHERE balances.account >= 'user:' AND balances.account < 'user;'
    AND (balances.period = :day OR balances.period = :month)
ORDER BY balances.settled_tokens + balances.reserved_tokens DESC,
    balances.settled_microusd + balances.reserved_microusd DESC, balances.account, balances.period
LIMIT :limit

-- name: balances_of_live_runs
-- Those that have used the most money first, of those that run and the newest that wait.
SELECT balances.*, live.id AS run_id, live.agent, live.tenant, live.started_at
FROM (
    SELECT id, agent, tenant, started_at FROM runs
    WHERE id IN (SELECT attempts.run_id FROM attempts WHERE attempts.state = 'running') AND state = 'running'
    UNION ALL
    SELECT id, agent, tenant, started_at FROM (
        SELECT id, agent, tenant, started_at FROM runs
        WHERE state = 'waiting' AND state IN ('failed', 'cancelled', 'waiting') ORDER BY id DESC LIMIT :window
    ) AS waiting
) AS live
JOIN balances ON balances.account = 'run:' || live.id AND balances.period = 'run'
ORDER BY balances.settled_microusd + balances.reserved_microusd DESC, live.id LIMIT :limit

-- name: ledger_sums
-- What accounts have used that no limit has asked for yet. A run's own has its id, and no month.
SELECT item.account, item.period, CAST(coalesce(sum(ledger.settled_microusd), 0) AS BIGINT) AS settled_microusd,
    CAST(coalesce(sum(ledger.settled_tokens), 0) AS BIGINT) AS settled_tokens,
    CAST(coalesce(sum(ledger.settled_actions), 0) AS BIGINT) AS settled_actions,
    CAST(coalesce(sum(ledger.reserved_microusd), 0) AS BIGINT) AS reserved_microusd,
    CAST(coalesce(sum(ledger.reserved_tokens), 0) AS BIGINT) AS reserved_tokens,
    CAST(coalesce(sum(ledger.reserved_actions), 0) AS BIGINT) AS reserved_actions
FROM @rows(account text, period text, kind text, name text, month text, day text) AS item
LEFT JOIN ledger ON ledger.month = item.month AND (item.day IS NULL OR ledger.day = item.day)
    AND item.name = CASE item.kind WHEN 'agent' THEN ledger.agent WHEN 'platform' THEN ledger.platform
        WHEN 'tenant' THEN ledger.tenant WHEN 'tool' THEN ledger.tool WHEN 'user' THEN ledger.user_id ELSE item.name END
GROUP BY item.account, item.period

-- name: run_sums
SELECT CAST(coalesce(sum(settled_microusd), 0) AS BIGINT) AS settled_microusd,
    CAST(coalesce(sum(settled_tokens), 0) AS BIGINT) AS settled_tokens,
    CAST(coalesce(sum(settled_actions), 0) AS BIGINT) AS settled_actions,
    CAST(coalesce(sum(reserved_microusd), 0) AS BIGINT) AS reserved_microusd,
    CAST(coalesce(sum(reserved_tokens), 0) AS BIGINT) AS reserved_tokens,
    CAST(coalesce(sum(reserved_actions), 0) AS BIGINT) AS reserved_actions
FROM ledger WHERE run_id = :run_id

-- name: payers_of_run
-- On which days, of which platforms and by which tools a run has used something.
SELECT DISTINCT day, month, platform, tool FROM ledger WHERE run_id = :run_id ORDER BY day, platform, tool

-- name: work_of_run
-- How many tools a run has called, how many questions it has asked, and for how long it has worked.
SELECT (SELECT count(*) FROM checkpoints WHERE checkpoints.run_id = runs.id AND checkpoints.kind = 'tool') AS calls,
    (SELECT count(*) FROM checkpoints WHERE checkpoints.run_id = runs.id AND checkpoints.kind = 'model') AS questions,
    (SELECT CAST(coalesce(sum(coalesce(attempts.finished_at, :now) - attempts.started_at), 0) AS BIGINT)
     FROM attempts WHERE attempts.run_id = runs.id) AS worked_us
FROM runs WHERE runs.id = :run_id

-- name: routes_of_run
SELECT route, count(*) AS calls FROM model_calls WHERE run_id = :run_id AND outcome <> 'skipped'
GROUP BY route ORDER BY route

-- name: limit_notes_of_run
-- What is known of limits that a run has met: in its calls of models, and where it was suspended.
SELECT outcome, message AS told FROM model_calls WHERE run_id = :run_id AND reason = 'over_limit'
UNION ALL
SELECT 'suspended', reason FROM audit WHERE entity_id = :run_id AND action = 'run.suspended' AND reason IS NOT NULL

-- name: count_blocked_runs
SELECT count(DISTINCT run_id) AS runs FROM waits WHERE kind = 'limit'
