-- Alerts: episodes of rules, who was told of them, what is silenced, and what is usual for each agent.

-- One time that a rule's condition held for one subject. `agent` and `tenant` are empty where it is about neither;
-- `met_at` is when the condition was last met, `told_at` when the message of its start was queued.
CREATE TABLE alerts (
    id {id} PRIMARY KEY,
    rule {id} NOT NULL,
    subject {id} NOT NULL,
    agent {id} NOT NULL,
    tenant {id} NOT NULL,
    state {id} NOT NULL CHECK (state IN ('pending', 'firing', 'resolved')),
    severity {id} NOT NULL CHECK (severity IN ('info', 'warning', 'critical')),
    value {double} NOT NULL,
    threshold {double} NOT NULL,
    unit {id} NOT NULL,
    text TEXT NOT NULL,
    runbook {id} NOT NULL,
    flaps INTEGER NOT NULL DEFAULT 0,
    since BIGINT NOT NULL,
    met_at BIGINT NOT NULL,
    fired_at BIGINT CHECK ((fired_at IS NULL) = (state = 'pending')),
    resolved_at BIGINT CHECK ((resolved_at IS NOT NULL) = (state = 'resolved')),
    told_at BIGINT,
    acknowledged_at BIGINT,
    acknowledged_by {id}
);
CREATE UNIQUE INDEX alerts_live ON alerts (rule, subject) WHERE state IN ('pending', 'firing');
CREATE INDEX alerts_by_subject ON alerts (rule, subject, fired_at);
CREATE INDEX alerts_resolved ON alerts (resolved_at) WHERE state = 'resolved';

-- Whoever is told of what. `message` is null until a message takes it along; a digest takes several. The recipient of a
-- webhook is a hash, because its address may hold a key.
CREATE TABLE alert_notices (
    alert_id {id} NOT NULL,
    event {id} NOT NULL CHECK (event IN ('firing', 'resolved', 'test')),
    recipient {id} NOT NULL,
    message {id},
    queued_at BIGINT NOT NULL,
    sent_at BIGINT CHECK ((sent_at IS NULL) = (message IS NULL)),
    PRIMARY KEY (alert_id, event, recipient)
) {without_rowid};
CREATE INDEX alert_notices_held ON alert_notices (recipient, queued_at) WHERE message IS NULL;
CREATE INDEX alert_notices_sent ON alert_notices (recipient, sent_at) WHERE message IS NOT NULL;
CREATE INDEX alert_notices_by_message ON alert_notices (message) WHERE message IS NOT NULL;

-- Patterns of rules, subjects and agents of which nobody is told until an instant.
CREATE TABLE silences (
    id {id} PRIMARY KEY,
    rule {id} NOT NULL,
    subject {id} NOT NULL,
    agent {id} NOT NULL,
    reason TEXT NOT NULL,
    until_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by {id} NOT NULL,
    ended_at BIGINT,
    ended_by {id}
);
CREATE INDEX silences_live ON silences (until_at) WHERE ended_at IS NULL;

-- What is usual for an agent: JSON of the counters at the last block, of the scores of its blocks, and of its tool mix.
CREATE TABLE baselines (
    agent {id} NOT NULL,
    measure {id} NOT NULL,
    counted TEXT NOT NULL,
    scores TEXT NOT NULL,
    mix TEXT NOT NULL,
    learned INTEGER NOT NULL,
    evidence {double} NOT NULL,
    changed_at BIGINT NOT NULL,
    PRIMARY KEY (agent, measure)
);

CREATE INDEX workers_lost ON workers (stopped_at) WHERE state = 'lost';
CREATE INDEX checkpoints_runaway ON checkpoints (run_id) WHERE kind = 'runaway';
