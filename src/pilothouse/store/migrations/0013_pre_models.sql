-- What models and tools were asked, what it cost, and what all workers must know of the dependencies behind them.

-- Every question that went to a model, in the transaction of the step that it belongs to; the ones that failed too.
CREATE TABLE model_calls (
    run_id {id} NOT NULL,
    key {id} NOT NULL,
    attempt INTEGER NOT NULL,
    number INTEGER NOT NULL,
    route TEXT NOT NULL,
    model TEXT NOT NULL,
    outcome {id} NOT NULL CHECK (outcome IN ('answered', 'cached', 'failed', 'skipped')),
    reason TEXT,
    message TEXT,
    input_tokens BIGINT NOT NULL,
    cache_read_tokens BIGINT NOT NULL,
    cache_write_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    reasoning_tokens BIGINT NOT NULL,
    usage TEXT,
    cost_microusd BIGINT NOT NULL CHECK (cost_microusd >= 0),
    price TEXT,
    started_at BIGINT NOT NULL,
    latency_us BIGINT NOT NULL,
    PRIMARY KEY (run_id, key, attempt, number)
);

CREATE TABLE tool_calls (
    run_id {id} NOT NULL,
    key {id} NOT NULL,
    attempt INTEGER NOT NULL,
    tool TEXT NOT NULL,
    effect TEXT NOT NULL,
    platform TEXT,
    called_by {id} NOT NULL CHECK (called_by IN ('code', 'model')),
    arguments TEXT NOT NULL,
    outcome {id} NOT NULL CHECK (outcome IN ('succeeded', 'failed')),
    cost_microusd BIGINT NOT NULL CHECK (cost_microusd >= 0),
    started_at BIGINT NOT NULL,
    latency_us BIGINT NOT NULL,
    PRIMARY KEY (run_id, key, attempt)
);

CREATE TABLE breakers (
    name {id} PRIMARY KEY,
    state {id} NOT NULL CHECK (state IN ('closed', 'open', 'half_open')),
    successes INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    window_at BIGINT NOT NULL,
    open_until BIGINT NOT NULL,
    opens INTEGER NOT NULL,
    probes INTEGER NOT NULL,
    probes_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    reason TEXT NOT NULL
);

CREATE TABLE buckets (
    name {id} PRIMARY KEY,
    due_at BIGINT NOT NULL,
    blocked_until BIGINT NOT NULL,
    reason TEXT NOT NULL
);

-- Answers that may be given again to the same question of the same tenant.
CREATE TABLE model_answers (
    tenant {id} NOT NULL,
    question {id} NOT NULL,
    answer TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, question)
);
CREATE INDEX model_answers_by_expiry ON model_answers (expires_at);

-- What an agent remembers from one run to the next, for each tenant.
CREATE TABLE memories (
    tenant {id} NOT NULL,
    agent {id} NOT NULL,
    name {id} NOT NULL,
    value TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, agent, name)
);

-- A step may be of any kind that the engine knows; what kinds there are is not for the schema to say.
-- only: postgres
ALTER TABLE checkpoints DROP CONSTRAINT checkpoints_kind_check;
-- end

-- only: sqlite
CREATE TABLE checkpoints_of_any_kind (
    run_id {id} NOT NULL,
    key {id} NOT NULL,
    attempt INTEGER NOT NULL,
    kind {id} NOT NULL,
    request_hash {id} NOT NULL,
    request TEXT NOT NULL,
    state {id} NOT NULL CHECK (state IN ('succeeded', 'failed', 'retryable')),
    result TEXT,
    error TEXT,
    tries INTEGER NOT NULL,
    started_at BIGINT NOT NULL,
    finished_at BIGINT NOT NULL,
    state_version INTEGER NOT NULL DEFAULT 1,
    PRIMARY KEY (run_id, key)
) {without_rowid};

INSERT INTO checkpoints_of_any_kind (run_id, key, attempt, kind, request_hash, request, state, result, error, tries,
    started_at, finished_at, state_version)
SELECT run_id, key, attempt, kind, request_hash, request, state, result, error, tries, started_at, finished_at,
    state_version
FROM checkpoints;

DROP TABLE checkpoints;

ALTER TABLE checkpoints_of_any_kind RENAME TO checkpoints;
-- end
