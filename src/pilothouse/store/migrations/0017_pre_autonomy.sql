-- How much agents may do on their own, how well they judge themselves, and the plans that try them out.

-- What its App declares; empty where it leaves that to the settings.
ALTER TABLE agents ADD COLUMN autonomy {id};

-- `*` stands for every version, or for every action. Decisions since `counted_from` are evidence for more.
CREATE TABLE autonomy (
    agent {id} NOT NULL,
    fingerprint {id} NOT NULL,
    action {id} NOT NULL,
    level {id} NOT NULL CHECK (level IN ('supervised', 'assisted', 'autonomous')),
    asks_outward INTEGER NOT NULL CHECK (asks_outward IN (0, 1)),
    least_confidence DOUBLE PRECISION,
    since BIGINT NOT NULL,
    counted_from BIGINT NOT NULL,
    set_by {id} NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (agent, fingerprint, action)
) {without_rowid};

-- The latest decisions on what an agent was confident of.
CREATE INDEX approvals_with_confidence ON approvals (agent, decided_at)
    WHERE confidence IS NOT NULL AND decision IS NOT NULL;

-- Whether an agent's calibration error is over its limit. `told_at` is empty until the alert went out.
CREATE TABLE calibrations (
    agent {id} PRIMARY KEY,
    error DOUBLE PRECISION,
    is_off INTEGER NOT NULL CHECK (is_off IN (0, 1)),
    changed_at BIGINT NOT NULL,
    told_at BIGINT
) {without_rowid};

-- A stability plan: how an agent's version is let go stage by stage, and what came of it.
CREATE TABLE stability (
    id {id} PRIMARY KEY,
    agent {id} NOT NULL,
    fingerprint {id} NOT NULL,
    state {id} NOT NULL CHECK (state IN ('running', 'passed', 'failed', 'unproven', 'stopped')),
    stage INTEGER NOT NULL,
    day_us BIGINT NOT NULL CHECK (day_us > 0),
    target_level {id} NOT NULL,
    target_actions BIGINT NOT NULL CHECK (target_actions > 0),
    started_at BIGINT NOT NULL,
    started_by {id} NOT NULL,
    stage_at BIGINT NOT NULL,
    check_at BIGINT NOT NULL,
    audit_from BIGINT NOT NULL,
    before TEXT NOT NULL,
    scores TEXT,
    ended_at BIGINT,
    reason TEXT,
    report TEXT
);
CREATE UNIQUE INDEX stability_running ON stability (agent) WHERE state = 'running';
CREATE INDEX stability_due ON stability (check_at) WHERE state = 'running';
