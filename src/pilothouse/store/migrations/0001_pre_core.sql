-- The durable core: agents, runs, attempts, checkpoints, signals, waits, workers, leases, counters and the audit.
-- Instants are integer microseconds UTC. JSON is canonical text. An attempt is (run_id, number): its fencing token.

CREATE TABLE agents (
    name {id} PRIMARY KEY,
    app TEXT NOT NULL,
    description TEXT NOT NULL,
    lane {id} NOT NULL,
    priority INTEGER NOT NULL,
    max_attempts INTEGER NOT NULL,
    max_losses INTEGER NOT NULL,
    timeout_us BIGINT NOT NULL,
    run_timeout_us BIGINT,
    input_schema TEXT NOT NULL,
    output_schema TEXT NOT NULL,
    registered_at BIGINT NOT NULL,
    registered_by {id} NOT NULL
);

CREATE TABLE runs (
    id {id} PRIMARY KEY,
    tenant {id} NOT NULL,
    agent {id} NOT NULL,
    lane {id} NOT NULL,
    priority INTEGER NOT NULL,
    state {id} NOT NULL CHECK (state IN ('queued', 'running', 'waiting', 'succeeded', 'failed', 'cancelled')),
    available_at BIGINT CHECK (available_at IS NULL OR state IN ('queued', 'waiting')),
    attempt INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    losses INTEGER NOT NULL DEFAULT 0,
    max_attempts INTEGER NOT NULL,
    max_losses INTEGER NOT NULL,
    run_timeout_us BIGINT,
    deadline_at BIGINT,
    input TEXT NOT NULL,
    output TEXT,
    error TEXT,
    idempotency_key {id},
    parent_id {id},
    root_id {id} NOT NULL,
    cancel_requested_at BIGINT,
    progress_done BIGINT,
    progress_total BIGINT,
    dismissed_at BIGINT,
    created_at BIGINT NOT NULL,
    started_at BIGINT,
    finished_at BIGINT
);

-- The claim: per lane and agent, by priority, oldest first. Rows that nobody may take are not in it.
CREATE INDEX runs_claim ON runs (lane, agent, priority DESC, available_at) WHERE available_at IS NOT NULL;
CREATE UNIQUE INDEX runs_idempotency ON runs (tenant, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX runs_parent ON runs (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX runs_dead ON runs (id) WHERE state = 'failed' AND dismissed_at IS NULL;
CREATE INDEX runs_cancelling ON runs (id) WHERE state = 'running' AND cancel_requested_at IS NOT NULL;
CREATE INDEX runs_running ON runs (id) WHERE state = 'running';

CREATE TABLE attempts (
    run_id {id} NOT NULL,
    number INTEGER NOT NULL,
    worker_id {id} NOT NULL,
    state {id} NOT NULL CHECK (state IN ('running', 'succeeded', 'failed', 'suspended', 'lost', 'cancelled')),
    started_at BIGINT NOT NULL,
    finished_at BIGINT CHECK ((finished_at IS NULL) = (state = 'running')),
    error TEXT,
    steps_executed INTEGER NOT NULL DEFAULT 0,
    steps_replayed INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (run_id, number)
) {without_rowid};

CREATE INDEX attempts_running ON attempts (worker_id) WHERE state = 'running';

-- A checkpoint is `retryable` while its step's failure ended the attempt, `failed` once the handler went on past it.
CREATE TABLE checkpoints (
    run_id {id} NOT NULL,
    key {id} NOT NULL,
    attempt INTEGER NOT NULL,
    kind {id} NOT NULL CHECK (kind IN ('step', 'timer', 'signal', 'child', 'result')),
    request_hash {id} NOT NULL,
    request TEXT NOT NULL,
    state {id} NOT NULL CHECK (state IN ('succeeded', 'failed', 'retryable')),
    result TEXT,
    error TEXT,
    tries INTEGER NOT NULL,
    started_at BIGINT NOT NULL,
    finished_at BIGINT NOT NULL,
    PRIMARY KEY (run_id, key)
) {without_rowid};

-- First write wins: a signal's name is used once per run.
CREATE TABLE signals (
    run_id {id} NOT NULL,
    name {id} NOT NULL,
    payload TEXT NOT NULL,
    principal {id} NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (run_id, name)
) {without_rowid};

-- What a waiting run waits for. A group is satisfied when none of its rows is left; any satisfied group wakes the run.
CREATE TABLE waits (
    run_id {id} NOT NULL,
    kind {id} NOT NULL CHECK (kind IN ('signal', 'child')),
    name {id} NOT NULL,
    wait_group {id} NOT NULL,
    PRIMARY KEY (run_id, kind, name, wait_group)
) {without_rowid};

CREATE TABLE run_logs (
    id {bigserial},
    run_id {id} NOT NULL,
    attempt INTEGER NOT NULL,
    at BIGINT NOT NULL,
    level {id} NOT NULL,
    message TEXT NOT NULL,
    fields TEXT NOT NULL
);

CREATE INDEX run_logs_run ON run_logs (run_id, id);

CREATE TABLE workers (
    id {id} PRIMARY KEY,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    state {id} NOT NULL CHECK (state IN ('running', 'draining', 'stopped', 'lost')),
    app TEXT NOT NULL,
    agents TEXT NOT NULL,
    slots TEXT NOT NULL,
    version TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    renewed_at BIGINT NOT NULL,
    lease_until BIGINT NOT NULL,
    stopped_at BIGINT
);

CREATE INDEX workers_leased ON workers (lease_until) WHERE state IN ('running', 'draining');

-- Named leases of the chores: whoever holds one is the leader for it.
CREATE TABLE leases (
    name {id} PRIMARY KEY,
    holder {id} NOT NULL,
    lease_until BIGINT NOT NULL
);

-- Kept in the transaction of the change they count. The shard keeps processes from waiting for each other's rows.
CREATE TABLE counters (
    name {id} NOT NULL,
    agent {id} NOT NULL,
    lane {id} NOT NULL,
    label {id} NOT NULL,
    shard INTEGER NOT NULL,
    value BIGINT NOT NULL,
    PRIMARY KEY (name, agent, lane, label, shard)
) {without_rowid};

CREATE TABLE audit (
    seq {bigserial},
    at BIGINT NOT NULL,
    tenant {id} NOT NULL,
    principal {id} NOT NULL,
    action {id} NOT NULL,
    entity {id} NOT NULL,
    entity_id {id} NOT NULL,
    before {id},
    after {id},
    reason TEXT,
    run_id {id},
    attempt INTEGER
);

CREATE INDEX audit_entity ON audit (entity_id, seq);

-- only: postgres
-- A sequence number is taken before its commit; a reader that must not skip one waits for older transactions by this.
ALTER TABLE audit ADD COLUMN written_by xid8 NOT NULL DEFAULT pg_current_xact_id();

CREATE FUNCTION refuse_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'run % cannot go from % to %', OLD.id, OLD.state, NEW.state USING ERRCODE = 'check_violation';
END
$$;

CREATE TRIGGER runs_transition BEFORE UPDATE OF state ON runs FOR EACH ROW WHEN (NOT (
    (OLD.state = 'queued' AND NEW.state IN ('running', 'cancelled'))
    OR (OLD.state = 'waiting' AND NEW.state IN ('running', 'cancelled'))
    OR (OLD.state = 'running' AND NEW.state IN ('succeeded', 'waiting', 'queued', 'failed', 'cancelled'))
    OR (OLD.state = 'failed' AND NEW.state = 'queued')
)) EXECUTE FUNCTION refuse_transition();
-- end

-- only: sqlite
CREATE TRIGGER runs_transition BEFORE UPDATE OF state ON runs FOR EACH ROW WHEN (NOT (
    (OLD.state = 'queued' AND NEW.state IN ('running', 'cancelled'))
    OR (OLD.state = 'waiting' AND NEW.state IN ('running', 'cancelled'))
    OR (OLD.state = 'running' AND NEW.state IN ('succeeded', 'waiting', 'queued', 'failed', 'cancelled'))
    OR (OLD.state = 'failed' AND NEW.state = 'queued')
)) BEGIN
    SELECT RAISE(ABORT, 'a run cannot go from its state to the new one');
END;
-- end
