-- Schedules: which agent runs when. `next_fire_at` moves on in the transaction that submits what fired.

CREATE TABLE schedules (
    name {id} PRIMARY KEY,
    app TEXT NOT NULL,
    agent {id} NOT NULL,
    cron TEXT NOT NULL,
    timezone TEXT NOT NULL,
    input TEXT NOT NULL,
    lane {id},
    priority INTEGER,
    tenant {id} NOT NULL,
    catch_up {id} NOT NULL CHECK (catch_up IN ('none', 'one', 'all')),
    catch_up_limit INTEGER NOT NULL,
    overlap {id} NOT NULL CHECK (overlap IN ('allow', 'skip', 'cancel')),
    next_fire_at BIGINT,
    last_fire_at BIGINT,
    last_run_id {id},
    last_error TEXT,
    paused_at BIGINT,
    removed_at BIGINT,
    registered_at BIGINT NOT NULL,
    registered_by {id} NOT NULL
);

CREATE INDEX schedules_due ON schedules (next_fire_at) WHERE paused_at IS NULL AND removed_at IS NULL;
