-- Governance: limits and the ledger that holds them, the effects on the world outside, and the approvals of people.
-- Money is micro-dollars. What a call is about to use is reserved in the transaction that lets it go out.

-- Whom a run works for, where its submitter said so.
ALTER TABLE runs ADD COLUMN user_id {id};

-- A limit for one account, such as `tenant:acme`, or for each of a kind, such as `tenant:*`. What an operator has set
-- beats what the settings say; an amount that is null lifts it. The epoch of the latest change tells whether any was
-- made since somebody looked.
CREATE TABLE limits (
    scope {id} NOT NULL,
    period {id} NOT NULL CHECK (period IN ('run', 'day', 'month')),
    unit {id} NOT NULL CHECK (unit IN ('microusd', 'tokens', 'actions', 'calls', 'seconds')),
    amount BIGINT CHECK (amount >= 0),
    source {id} NOT NULL CHECK (source IN ('settings', 'operator')),
    set_by {id} NOT NULL,
    set_at BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    PRIMARY KEY (scope, period, unit)
) {without_rowid};
CREATE INDEX limits_epoch ON limits (epoch);

-- What an account has used in a period: the sum of its entries in the ledger, kept in the transaction of each. There is
-- one from when a limit first asked for it. The period is `run`, a day or a month, such as 2026-11-21 or 2026-11.
CREATE TABLE balances (
    account {id} NOT NULL,
    period {id} NOT NULL,
    settled_microusd BIGINT NOT NULL,
    settled_tokens BIGINT NOT NULL,
    settled_actions BIGINT NOT NULL,
    reserved_microusd BIGINT NOT NULL,
    reserved_tokens BIGINT NOT NULL,
    reserved_actions BIGINT NOT NULL,
    PRIMARY KEY (account, period)
) {without_rowid};

-- What a call may use at most, from before it goes out until it is known what it did use.
CREATE TABLE reservations (
    id {id} PRIMARY KEY,
    state {id} NOT NULL CHECK (state IN ('held', 'settled')),
    run_id {id} NOT NULL,
    key {id} NOT NULL,
    attempt INTEGER NOT NULL,
    tenant {id} NOT NULL,
    agent {id} NOT NULL,
    user_id {id},
    platform {id},
    tool {id},
    model {id},
    day {id} NOT NULL,
    month {id} NOT NULL,
    microusd BIGINT NOT NULL CHECK (microusd >= 0),
    tokens BIGINT NOT NULL CHECK (tokens >= 0),
    actions BIGINT NOT NULL CHECK (actions >= 0),
    created_at BIGINT NOT NULL,
    settled_at BIGINT
);
CREATE INDEX reservations_held ON reservations (created_at) WHERE state = 'held';
CREATE INDEX reservations_run ON reservations (run_id);

-- Append-only: a reservation adds to what is reserved, its settlement takes that away and adds what was used.
CREATE TABLE ledger (
    seq {bigserial},
    at BIGINT NOT NULL,
    kind {id} NOT NULL CHECK (kind IN ('reserve', 'settle', 'adjust')),
    reservation_id {id} NOT NULL,
    run_id {id} NOT NULL,
    tenant {id} NOT NULL,
    agent {id} NOT NULL,
    user_id {id},
    platform {id},
    tool {id},
    model {id},
    day {id} NOT NULL,
    month {id} NOT NULL,
    settled_microusd BIGINT NOT NULL,
    settled_tokens BIGINT NOT NULL,
    settled_actions BIGINT NOT NULL,
    reserved_microusd BIGINT NOT NULL,
    reserved_tokens BIGINT NOT NULL,
    reserved_actions BIGINT NOT NULL,
    reason TEXT
);
CREATE INDEX ledger_run ON ledger (run_id);
CREATE INDEX ledger_month ON ledger (month, day);

-- A call that changes the world outside. `intended` before it goes out, then what became of it: one that gave no answer
-- in time, or whose attempt has ended meanwhile, is unknown until its tool's `verify` or a person has said.
CREATE TABLE effects (
    id {id} PRIMARY KEY,
    run_id {id} NOT NULL,
    key {id} NOT NULL,
    attempt INTEGER NOT NULL,
    tenant {id} NOT NULL,
    agent {id} NOT NULL,
    tool {id} NOT NULL,
    platform {id},
    effect {id} NOT NULL,
    arguments_hash {id} NOT NULL,
    state {id} NOT NULL CHECK (state IN ('intended', 'succeeded', 'failed', 'unknown')),
    tries INTEGER NOT NULL,
    intended_at BIGINT NOT NULL,
    finished_at BIGINT,
    resolved_by {id},
    note TEXT
);
CREATE INDEX effects_open ON effects (id) WHERE state IN ('intended', 'unknown');
CREATE INDEX effects_run ON effects (run_id);
CREATE INDEX effects_by_tool ON effects (tool, intended_at);

-- A person's decision on one proposed action of one run: bound to the run, the step and the arguments' hash.
CREATE TABLE approvals (
    id {id} PRIMARY KEY,
    run_id {id} NOT NULL,
    key {id} NOT NULL,
    round INTEGER NOT NULL,
    tenant {id} NOT NULL,
    agent {id} NOT NULL,
    fingerprint {id} NOT NULL,
    action {id} NOT NULL,
    requested_by {id} NOT NULL,
    title TEXT NOT NULL,
    recommendation TEXT NOT NULL,
    reasoning TEXT NOT NULL,
    risk_assessment TEXT NOT NULL,
    risk INTEGER NOT NULL CHECK (risk BETWEEN 0 AND 4),
    confidence {double},
    cost_microusd BIGINT NOT NULL CHECK (cost_microusd >= 0),
    billing {id} NOT NULL CHECK (billing IN ('none', 'one_time', 'recurring')),
    people_affected INTEGER NOT NULL,
    is_reversible INTEGER NOT NULL CHECK (is_reversible IN (0, 1)),
    alternatives TEXT NOT NULL,
    arguments TEXT NOT NULL,
    arguments_hash {id} NOT NULL,
    reasons TEXT NOT NULL,
    quorum INTEGER NOT NULL CHECK (quorum >= 1),
    assigned_to {id},
    on_deadline {id} NOT NULL CHECK (on_deadline IN ('escalate', 'expire', 'wait')),
    escalate_to {id},
    deadline_at BIGINT,
    requested_at BIGINT NOT NULL,
    state {id} NOT NULL CHECK (state IN ('pending', 'approved', 'rejected', 'expired', 'returned', 'withdrawn')),
    decision {id},
    decided_by {id},
    decided_at BIGINT,
    note TEXT,
    decided_arguments TEXT,
    decided_hash {id},
    UNIQUE (run_id, key, round)
);
CREATE INDEX approvals_pending ON approvals (id) WHERE state = 'pending';
CREATE INDEX approvals_due ON approvals (deadline_at) WHERE state = 'pending' AND deadline_at IS NOT NULL;
CREATE INDEX approvals_decided ON approvals (agent, action, decided_at);

-- Where more than one person must agree, each says it once.
CREATE TABLE approval_votes (
    approval_id {id} NOT NULL,
    principal {id} NOT NULL,
    decision {id} NOT NULL,
    note TEXT,
    at BIGINT NOT NULL,
    PRIMARY KEY (approval_id, principal)
) {without_rowid};

-- A run may wait for anything that the engine knows; what there is is not for the schema to say.
CREATE TABLE waits_of_any_kind (
    run_id {id} NOT NULL,
    kind {id} NOT NULL,
    name {id} NOT NULL,
    wait_group {id} NOT NULL,
    PRIMARY KEY (run_id, kind, name, wait_group)
) {without_rowid};

INSERT INTO waits_of_any_kind (run_id, kind, name, wait_group) SELECT run_id, kind, name, wait_group FROM waits;

DROP TABLE waits;

ALTER TABLE waits_of_any_kind RENAME TO waits;

CREATE INDEX waits_by_name ON waits (kind, name);

-- Which reservation and which effect a call belongs to.
ALTER TABLE model_calls ADD COLUMN reservation_id {id};

ALTER TABLE tool_calls ADD COLUMN reservation_id {id};

ALTER TABLE tool_calls ADD COLUMN effect_id {id};
