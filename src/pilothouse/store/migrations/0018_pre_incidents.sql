-- What an effect was, exactly; incidents with their siblings and corrections; and cases that runs were frozen as.

ALTER TABLE effects ADD COLUMN arguments TEXT;

ALTER TABLE effects ADD COLUMN fingerprint {id};

-- Which call of its step it is, which names the question whether it took place.
ALTER TABLE effects ADD COLUMN number INTEGER NOT NULL DEFAULT 1;

-- Of a correction by hand: the effect that it corrects.
ALTER TABLE effects ADD COLUMN corrects {id};

CREATE INDEX effects_by_time ON effects (intended_at, id);
CREATE INDEX effects_by_arguments ON effects (arguments_hash);

-- A bad action, and what is done about it.
CREATE TABLE incidents (
    id {id} PRIMARY KEY,
    state {id} NOT NULL CHECK (state IN ('open', 'closed')),
    severity {id} NOT NULL CHECK (severity IN ('critical', 'minor')),
    effect_id {id} NOT NULL,
    run_id {id} NOT NULL,
    tenant {id} NOT NULL,
    agent {id} NOT NULL,
    tool {id} NOT NULL,
    fingerprint {id},
    reason TEXT NOT NULL,
    hours INTEGER NOT NULL,
    opened_at BIGINT NOT NULL,
    opened_by {id} NOT NULL,
    closed_at BIGINT,
    closed_by {id},
    note TEXT
);
CREATE UNIQUE INDEX incidents_open ON incidents (effect_id) WHERE state = 'open';
CREATE INDEX incidents_by_agent ON incidents (agent, opened_at);
CREATE INDEX incidents_by_run ON incidents (run_id) WHERE state = 'open';

-- The effect itself and its siblings, as they were when the incident was opened; `kinship` says in what they are alike.
CREATE TABLE incident_effects (
    incident_id {id} NOT NULL,
    effect_id {id} NOT NULL,
    run_id {id} NOT NULL,
    tenant {id} NOT NULL,
    kinship {id} NOT NULL,
    tool {id} NOT NULL,
    state {id} NOT NULL,
    arguments TEXT,
    intended_at BIGINT NOT NULL,
    audit_seq BIGINT,
    PRIMARY KEY (incident_id, effect_id)
) {without_rowid};
CREATE INDEX incident_effects_by_run ON incident_effects (run_id);

CREATE TABLE corrections (
    id {id} PRIMARY KEY,
    incident_id {id} NOT NULL,
    tenant {id} NOT NULL,
    effect_id {id} NOT NULL,
    audit_seq BIGINT,
    note TEXT NOT NULL,
    by_run {id},
    corrected_by {id} NOT NULL,
    corrected_at BIGINT NOT NULL
);
CREATE INDEX corrections_by_incident ON corrections (incident_id);

-- A run as a regression case: JSON of its agent, input, answers up to the bad action, and what it must not do again.
CREATE TABLE cases (
    id {id} PRIMARY KEY,
    incident_id {id} NOT NULL,
    tenant {id} NOT NULL,
    agent {id} NOT NULL,
    content TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by {id} NOT NULL
);
CREATE UNIQUE INDEX cases_by_incident ON cases (incident_id);
