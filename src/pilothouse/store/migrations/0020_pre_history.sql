-- The history: how counters and gauges stood from time to time, so that charts and alerts have a past without counting runs.

CREATE TABLE history_series (
    id {bigserial},
    name {id} NOT NULL,
    agent {id} NOT NULL,
    label {id} NOT NULL,
    UNIQUE (name, agent, label)
);

-- A sample is there only where the value had changed. It is `is_fine` until it is either thinned out or kept for long.
CREATE TABLE history (
    series BIGINT NOT NULL,
    at BIGINT NOT NULL,
    value BIGINT NOT NULL,
    is_fine INTEGER NOT NULL DEFAULT 1 CHECK (is_fine IN (0, 1)),
    PRIMARY KEY (series, at)
) {without_rowid};

CREATE INDEX history_by_age ON history (is_fine, at);

-- What is counted from now on begins with what there was.
INSERT INTO counters (name, agent, lane, label, shard, value)
SELECT 'runs_ended', agent, lane, label, 0, sum(value) FROM counters
WHERE name IN ('runs', 'pruned') AND label IN ('succeeded', 'cancelled') AND agent <> ''
GROUP BY agent, lane, label;

-- A redrive takes a run out of the failed ones; each end but a cancel was timed.
INSERT INTO counters (name, agent, lane, label, shard, value)
SELECT 'runs_ended', agent, lane, 'failed', 0, sum(value) FROM (
    SELECT agent, lane, value FROM counters WHERE name = 'run_seconds'
    UNION ALL
    SELECT agent, lane, -value FROM counters WHERE name = 'runs_ended' AND label = 'succeeded'
) AS ends
GROUP BY agent, lane
HAVING sum(value) > 0;

INSERT INTO counters (name, agent, lane, label, shard, value)
SELECT 'model_calls', runs.agent, runs.lane, calls.model || '/' || calls.outcome, 0, count(*)
FROM model_calls AS calls JOIN runs ON runs.id = calls.run_id
GROUP BY runs.agent, runs.lane, calls.model, calls.outcome;

INSERT INTO counters (name, agent, lane, label, shard, value)
SELECT 'model_us', runs.agent, runs.lane, calls.model, 0, sum(calls.latency_us)
FROM model_calls AS calls JOIN runs ON runs.id = calls.run_id
WHERE calls.outcome = 'answered'
GROUP BY runs.agent, runs.lane, calls.model;

INSERT INTO counters (name, agent, lane, label, shard, value)
SELECT 'cost_microusd', runs.agent, runs.lane, 'model/' || calls.model, 0, sum(calls.cost_microusd)
FROM model_calls AS calls JOIN runs ON runs.id = calls.run_id
WHERE calls.cost_microusd > 0
GROUP BY runs.agent, runs.lane, calls.model;

INSERT INTO counters (name, agent, lane, label, shard, value)
SELECT 'cost_microusd', runs.agent, runs.lane, 'tool/' || calls.tool, 0, sum(calls.cost_microusd)
FROM tool_calls AS calls JOIN runs ON runs.id = calls.run_id
WHERE calls.cost_microusd > 0
GROUP BY runs.agent, runs.lane, calls.tool;

INSERT INTO counters (name, agent, lane, label, shard, value)
SELECT 'tokens', runs.agent, runs.lane, 'input', 0,
    sum(calls.input_tokens + calls.cache_read_tokens + calls.cache_write_tokens)
FROM model_calls AS calls JOIN runs ON runs.id = calls.run_id
GROUP BY runs.agent, runs.lane
HAVING sum(calls.input_tokens + calls.cache_read_tokens + calls.cache_write_tokens) > 0;

INSERT INTO counters (name, agent, lane, label, shard, value)
SELECT 'tokens', runs.agent, runs.lane, 'output', 0, sum(calls.output_tokens + calls.reasoning_tokens)
FROM model_calls AS calls JOIN runs ON runs.id = calls.run_id
GROUP BY runs.agent, runs.lane
HAVING sum(calls.output_tokens + calls.reasoning_tokens) > 0;

INSERT INTO counters (name, agent, lane, label, shard, value)
SELECT 'tool_calls', runs.agent, runs.lane, calls.tool || '/' || calls.outcome, 0, count(*)
FROM tool_calls AS calls JOIN runs ON runs.id = calls.run_id
GROUP BY runs.agent, runs.lane, calls.tool, calls.outcome;

INSERT INTO counters (name, agent, lane, label, shard, value)
SELECT 'tool_us', runs.agent, runs.lane, calls.tool, 0, sum(calls.latency_us)
FROM tool_calls AS calls JOIN runs ON runs.id = calls.run_id
GROUP BY runs.agent, runs.lane, calls.tool;

-- When the leader of a chore last took its turn; and whether an agent is code or a workflow of a YAML file.
ALTER TABLE leases ADD COLUMN held_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE agents ADD COLUMN definition {id} NOT NULL DEFAULT 'code';
