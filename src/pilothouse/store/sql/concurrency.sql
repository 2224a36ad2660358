-- name: lock_agents
-- Whoever claims runs of a limited agent holds its row until the commit. On SQLite the writer is alone anyway.
SELECT item.name FROM @rows(name text) AS item WHERE false

-- name: running_by_agent
SELECT agent, sum(value) AS running FROM counters
WHERE name = 'runs' AND label = 'running' AND agent IN (SELECT item.name FROM @rows(name text) AS item)
GROUP BY agent

-- name: running_by_key
SELECT agent, concurrency_key, count(*) AS running FROM runs
WHERE state = 'running' AND concurrency_key IS NOT NULL AND agent IN (SELECT item.name FROM @rows(name text) AS item)
GROUP BY agent, concurrency_key
