-- name: attempt_spans
SELECT attempts.run_id, number, worker_id, state, started_at, finished_at, error
FROM attempts WHERE run_id IN (SELECT item.id FROM @rows(id text) AS item)

-- name: step_spans
-- Without what they have answered, but the instants of timers.
SELECT run_id, key, attempt, kind, state, error, tries, started_at, finished_at,
    CASE WHEN kind = 'timer' THEN result END AS result
FROM checkpoints WHERE run_id IN (SELECT item.id FROM @rows(id text) AS item)

-- name: model_call_spans
SELECT run_id, key, attempt, number, model, outcome, reason, input_tokens, cache_read_tokens, cache_write_tokens,
    output_tokens, reasoning_tokens, cost_microusd, started_at, latency_us
FROM model_calls WHERE run_id IN (SELECT item.id FROM @rows(id text) AS item)

-- name: tool_call_spans
SELECT run_id, key, attempt, tool, effect, outcome, cost_microusd, started_at, latency_us
FROM tool_calls WHERE run_id IN (SELECT item.id FROM @rows(id text) AS item)

-- name: effect_spans
SELECT effects.run_id, effects.id, effects.key, effects.attempt, effects.tool, effects.effect, effects.state,
    effects.intended_at, effects.finished_at,
    EXISTS (SELECT 1 FROM attempts WHERE attempts.run_id = effects.run_id AND attempts.number = effects.attempt
        AND attempts.state = 'running') AS is_under_way
FROM effects WHERE effects.run_id IN (SELECT item.id FROM @rows(id text) AS item) AND effects.corrects IS NULL

-- name: approval_spans
SELECT run_id, id, key, title, state, requested_at, decided_at
FROM approvals WHERE run_id IN (SELECT item.id FROM @rows(id text) AS item)

-- name: signal_spans
SELECT run_id, name, created_at FROM signals WHERE run_id IN (SELECT item.id FROM @rows(id text) AS item)

-- name: child_spans
SELECT parent_id AS run_id, id, agent, state, created_at, finished_at
FROM runs WHERE parent_id IN (SELECT item.id FROM @rows(id text) AS item)

-- name: wait_spans
SELECT run_id, kind, name FROM waits WHERE run_id IN (SELECT item.id FROM @rows(id text) AS item)

-- name: wait_notes
SELECT entity_id AS run_id, at, seq, action, reason, attempt FROM audit
WHERE entity_id IN (SELECT item.id FROM @rows(id text) AS item)
    AND action IN ('run.suspended', 'run.released', 'run.snoozed', 'run.redriven')

-- name: runs_of_period
-- The newest first. An id begins with the instant of its submit, so a page reads few rows beside its own.
SELECT id, agent, state, available_at, attempt, created_at, finished_at FROM runs
WHERE id < :before AND id >= :first
    AND created_at >= CAST(:since AS BIGINT) AND created_at < CAST(:until AS BIGINT)
ORDER BY id DESC LIMIT :limit

-- name: agent_runs_of_period
-- The same of one agent, which may have few of many runs.
SELECT id, agent, state, available_at, attempt, created_at, finished_at FROM runs
WHERE agent = :agent AND id < :before AND id >= :first
    AND created_at >= CAST(:since AS BIGINT) AND created_at < CAST(:until AS BIGINT)
ORDER BY id DESC LIMIT :limit
