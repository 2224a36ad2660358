-- name: cost_report
-- What was used on some days, by one of the things that an entry knows. A run's state and version are those of the run
-- log, as long as it is in there; what it has used counts in `known_microusd` only then.
WITH entries AS (
    SELECT ledger.run_id, runs.state, ledger.settled_microusd, ledger.settled_tokens, ledger.settled_actions,
        ledger.reserved_microusd,
        CASE WHEN ledger.kind = 'settle'
            AND (ledger.settled_microusd <> 0 OR ledger.settled_tokens <> 0 OR ledger.settled_actions <> 0)
            THEN 1 ELSE 0 END AS calls,
        CASE CAST(:by AS TEXT) WHEN 'agent' THEN ledger.agent WHEN 'model' THEN ledger.model
            WHEN 'tenant' THEN ledger.tenant WHEN 'user' THEN ledger.user_id WHEN 'tool' THEN ledger.tool
            WHEN 'platform' THEN ledger.platform WHEN 'day' THEN ledger.day
            ELSE ledger.agent || ' ' || runs.fingerprint END AS name
    FROM ledger LEFT JOIN runs ON runs.id = ledger.run_id
    WHERE ledger.month >= substr(CAST(:first AS TEXT), 1, 7) AND ledger.month <= substr(CAST(:last AS TEXT), 1, 7)
        AND ledger.day >= CAST(:first AS TEXT) AND ledger.day <= CAST(:last AS TEXT)
        AND (CAST(:tenant AS TEXT) IS NULL OR ledger.tenant = :tenant)
), by_run AS (
    SELECT name, run_id, state, sum(calls) AS calls, sum(settled_microusd) AS microusd, sum(settled_tokens) AS tokens,
        sum(settled_actions) AS actions, sum(reserved_microusd) AS reserved_microusd
    FROM entries GROUP BY name, run_id, state
)
SELECT name, CAST(sum(calls) AS BIGINT) AS calls, CAST(sum(tokens) AS BIGINT) AS tokens,
    CAST(sum(actions) AS BIGINT) AS actions, CAST(sum(microusd) AS BIGINT) AS microusd,
    CAST(sum(reserved_microusd) AS BIGINT) AS reserved_microusd, count(*) AS runs,
    CAST(sum(CASE WHEN state IS NULL THEN 0 ELSE 1 END) AS BIGINT) AS known_runs,
    CAST(sum(CASE WHEN state = 'succeeded' THEN 1 ELSE 0 END) AS BIGINT) AS succeeded,
    CAST(sum(CASE WHEN state IS NULL THEN 0 ELSE microusd END) AS BIGINT) AS known_microusd
FROM by_run GROUP BY name ORDER BY microusd DESC, name

-- name: answered_calls
-- Questions that were answered from an instant on, with what the ledger holds of each. A page goes on after the last.
SELECT model_calls.run_id, model_calls.key, model_calls.attempt, model_calls.number, model_calls.model,
    model_calls.input_tokens, model_calls.cache_read_tokens, model_calls.cache_write_tokens, model_calls.output_tokens,
    model_calls.reasoning_tokens, model_calls.started_at, model_calls.reservation_id, reservations.tenant,
    reservations.agent, reservations.user_id, reservations.platform, reservations.tool, reservations.day,
    reservations.month,
    (SELECT CAST(sum(ledger.settled_microusd) AS BIGINT) FROM ledger
     WHERE ledger.run_id = model_calls.run_id AND ledger.reservation_id = model_calls.reservation_id) AS booked_microusd
FROM model_calls JOIN reservations ON reservations.id = model_calls.reservation_id AND reservations.state = 'settled'
WHERE model_calls.outcome = 'answered' AND model_calls.started_at >= CAST(:since AS BIGINT)
    AND (model_calls.run_id, model_calls.key, model_calls.attempt, model_calls.number)
        > (CAST(:run_id AS TEXT), CAST(:key AS TEXT), CAST(:attempt AS BIGINT), CAST(:number AS BIGINT))
ORDER BY model_calls.run_id, model_calls.key, model_calls.attempt, model_calls.number LIMIT :limit

-- name: costs_by_model
-- What models have cost on each day.
SELECT day, model, CAST(sum(settled_microusd) AS BIGINT) AS microusd, CAST(sum(settled_tokens) AS BIGINT) AS tokens,
    CAST(sum(reserved_microusd) AS BIGINT) AS reserved_microusd
FROM ledger
WHERE month >= substr(CAST(:first AS TEXT), 1, 7) AND month <= substr(CAST(:last AS TEXT), 1, 7)
    AND day >= CAST(:first AS TEXT) AND day <= CAST(:last AS TEXT) AND model IS NOT NULL
GROUP BY day, model ORDER BY day, model

-- name: costs_by_payer
-- Whom a model has cost how much on a day.
SELECT run_id, tenant, agent, user_id, platform, tool, model, day, month,
    CAST(sum(settled_microusd) AS BIGINT) AS microusd, CAST(sum(settled_tokens) AS BIGINT) AS tokens
FROM ledger WHERE month = :month AND day = :day AND model = :model
GROUP BY run_id, tenant, agent, user_id, platform, tool, model, day, month
ORDER BY run_id, tenant, agent, user_id, platform, tool
