-- name: keep_memories
-- Written with a step of a run, for the run's own agent and tenant.
INSERT INTO memories (tenant, agent, name, value, updated_at)
SELECT runs.tenant, runs.agent, item.name, item.value, :now
FROM @rows(run_id text, name text, value text) AS item
JOIN runs ON runs.id = item.run_id
WHERE true
ON CONFLICT (tenant, agent, name) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at

-- name: memory_by_name
SELECT memories.value FROM runs
JOIN memories ON memories.tenant = runs.tenant AND memories.agent = runs.agent AND memories.name = :name
WHERE runs.id = :run_id
