-- name: insert_model_calls
INSERT INTO model_calls (run_id, key, attempt, number, route, model, outcome, reason, message, input_tokens,
    cache_read_tokens, cache_write_tokens, output_tokens, reasoning_tokens, usage, cost_microusd, price, started_at,
    latency_us, reservation_id)
SELECT item.run_id, item.key, item.attempt, item.number, item.route, item.model, item.outcome, item.reason,
    item.message, item.input_tokens, item.cache_read_tokens, item.cache_write_tokens, item.output_tokens,
    item.reasoning_tokens, item.usage, item.cost_microusd, item.price, item.started_at, item.latency_us,
    item.reservation_id
FROM @rows(run_id text, key text, attempt integer, number integer, route text, model text, outcome text, reason text,
    message text, input_tokens bigint, cache_read_tokens bigint, cache_write_tokens bigint, output_tokens bigint,
    reasoning_tokens bigint, usage text, cost_microusd bigint, price text, started_at bigint, latency_us bigint,
    reservation_id text) AS item

-- name: insert_tool_calls
INSERT INTO tool_calls (run_id, key, attempt, tool, effect, platform, called_by, arguments, outcome, cost_microusd,
    started_at, latency_us, reservation_id, effect_id)
SELECT item.run_id, item.key, item.attempt, item.tool, item.effect, item.platform, item.called_by, item.arguments,
    item.outcome, item.cost_microusd, item.started_at, item.latency_us, item.reservation_id, item.effect_id
FROM @rows(run_id text, key text, attempt integer, tool text, effect text, platform text, called_by text,
    arguments text, outcome text, cost_microusd bigint, started_at bigint, latency_us bigint, reservation_id text,
    effect_id text) AS item

-- name: model_calls_of_run
SELECT * FROM model_calls WHERE run_id = :run_id ORDER BY started_at, key, attempt, number

-- name: tool_calls_of_run
SELECT calls.*, runs.agent, checkpoints.result, checkpoints.error
FROM tool_calls AS calls
JOIN runs ON runs.id = calls.run_id
LEFT JOIN checkpoints ON checkpoints.run_id = calls.run_id AND checkpoints.key = calls.key
    AND checkpoints.attempt = calls.attempt
WHERE calls.run_id = :run_id ORDER BY calls.started_at, calls.key, calls.attempt

-- name: delete_model_calls
DELETE FROM model_calls WHERE run_id IN (SELECT item.id FROM @rows(id text) AS item)

-- name: delete_tool_calls
DELETE FROM tool_calls WHERE run_id IN (SELECT item.id FROM @rows(id text) AS item)

-- name: token_peaks
-- Of the latest calls of all runs, those of one version: the busiest minute of each run that has succeeded.
SELECT run_id, CAST(max(tokens) AS BIGINT) AS peak
FROM (
    SELECT latest.run_id, latest.started_at / 60000000 AS minute, sum(latest.tokens) AS tokens
    FROM (
        SELECT run_id, started_at,
            input_tokens + cache_read_tokens + cache_write_tokens + output_tokens + reasoning_tokens AS tokens
        FROM model_calls
        WHERE started_at > :now - CAST(:history_us AS BIGINT) AND outcome = 'answered'
        ORDER BY started_at DESC LIMIT :calls
    ) AS latest JOIN runs ON runs.id = latest.run_id
    WHERE runs.fingerprint = :version AND runs.state = 'succeeded'
    GROUP BY latest.run_id, latest.started_at / 60000000
) AS per_minute
GROUP BY run_id

-- name: run_totals
-- What runs have come to, for those who keep it elsewhere.
SELECT runs.id, runs.state, runs.attempt, runs.created_at, runs.started_at, runs.finished_at, runs.error,
    (SELECT CAST(coalesce(sum(settled_microusd), 0) AS BIGINT) FROM ledger WHERE ledger.run_id = runs.id)
        AS cost_microusd,
    (SELECT CAST(coalesce(sum(input_tokens + cache_read_tokens + cache_write_tokens), 0) AS BIGINT) FROM model_calls
     WHERE model_calls.run_id = runs.id) AS tokens_in,
    (SELECT CAST(coalesce(sum(output_tokens + reasoning_tokens), 0) AS BIGINT) FROM model_calls
     WHERE model_calls.run_id = runs.id) AS tokens_out,
    (SELECT count(*) FROM model_calls WHERE model_calls.run_id = runs.id AND outcome = 'answered') AS model_calls,
    (SELECT count(*) FROM tool_calls WHERE tool_calls.run_id = runs.id) AS tool_calls
FROM @rows(id text) AS item JOIN runs ON runs.id = item.id
