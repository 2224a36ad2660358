-- State versions: which version of an agent's state a run and its checkpoints are in, and what each worker can continue.

ALTER TABLE agents ADD COLUMN state_version INTEGER NOT NULL DEFAULT 1;
ALTER TABLE agents ADD COLUMN fingerprint {id} NOT NULL DEFAULT '';

-- Both empty until the first claim. The fingerprint stays that of the agent the run started with.
ALTER TABLE runs ADD COLUMN state_version INTEGER;
ALTER TABLE runs ADD COLUMN fingerprint {id};

ALTER TABLE checkpoints ADD COLUMN state_version INTEGER NOT NULL DEFAULT 1;

-- JSON: agent -> [oldest, newest] state version that the worker can continue.
ALTER TABLE workers ADD COLUMN state_versions TEXT NOT NULL DEFAULT '{}';
