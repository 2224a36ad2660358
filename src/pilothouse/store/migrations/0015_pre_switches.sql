-- Kill switches: the stops that operators have tripped, and how far each worker has seen them.

CREATE TABLE switches (
    scope {id} PRIMARY KEY,
    mode {id} NOT NULL CHECK (mode IN ('hold', 'drain', 'abort')),
    reason TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    tripped_by {id} NOT NULL,
    tripped_at BIGINT NOT NULL
) {without_rowid};

-- Counts every trip and every reset; the one row is there from the first trip on. Whoever trips or resets holds it, so
-- that a run which goes to sleep on a switch and the reset of that switch see each other.
CREATE TABLE switch_epochs (
    name {id} PRIMARY KEY,
    epoch BIGINT NOT NULL
) {without_rowid};

-- The last epoch that the worker acts by, and whether it was started to claim anything at all (ENGINE_ENABLED).
ALTER TABLE workers ADD COLUMN switch_epoch BIGINT NOT NULL DEFAULT 0;
ALTER TABLE workers ADD COLUMN is_enabled INTEGER NOT NULL DEFAULT 1;

-- What began before and after an instant, and how many tokens a minute has cost.
CREATE INDEX model_calls_by_start ON model_calls (started_at);
CREATE INDEX tool_calls_by_start ON tool_calls (started_at);
