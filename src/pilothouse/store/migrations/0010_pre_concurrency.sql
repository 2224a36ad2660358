-- How many runs of an agent, and of one key of it, may run at once; and how many of each tenant do.

ALTER TABLE agents ADD COLUMN max_running INTEGER;
ALTER TABLE agents ADD COLUMN max_running_per_key INTEGER;
ALTER TABLE runs ADD COLUMN concurrency_key {id};

CREATE INDEX runs_keyed ON runs (agent, concurrency_key) WHERE state = 'running' AND concurrency_key IS NOT NULL;

-- The claim walks the tenants of each priority, so that none of them can keep the others waiting.
DROP INDEX runs_claim;
CREATE INDEX runs_claim ON runs (lane, agent, priority DESC, tenant, available_at) WHERE available_at IS NOT NULL;

INSERT INTO counters (name, agent, lane, label, shard, value)
SELECT 'running', '', lane, tenant, 0, count(*) FROM runs WHERE state = 'running' GROUP BY lane, tenant;
