-- name: add_counters
INSERT INTO counters (name, agent, lane, label, shard, value)
SELECT item.name, item.agent, item.lane, item.label, item.shard, item.value
FROM @rows(name text, agent text, lane text, label text, shard integer, value bigint) AS item
WHERE true
ON CONFLICT (name, agent, lane, label, shard) DO UPDATE SET value = counters.value + excluded.value

-- name: add_call_counters
-- What calls are counted by is known by their runs. One order, as of all counters.
INSERT INTO counters (name, agent, lane, label, shard, value)
SELECT owned.name, owned.agent, owned.lane, owned.label, owned.shard, CAST(sum(owned.value) AS BIGINT)
FROM (
    SELECT item.name, item.label, item.shard, item.value,
        (SELECT runs.agent FROM runs WHERE runs.id = item.run_id) AS agent,
        (SELECT runs.lane FROM runs WHERE runs.id = item.run_id) AS lane
    FROM @rows(run_id text, name text, label text, shard integer, value bigint) AS item
) AS owned
WHERE owned.agent IS NOT NULL
GROUP BY owned.name, owned.agent, owned.lane, owned.label, owned.shard
ORDER BY owned.name, owned.agent, owned.lane, owned.label
ON CONFLICT (name, agent, lane, label, shard) DO UPDATE SET value = counters.value + excluded.value

-- name: read_counters
SELECT name, agent, lane, label, CAST(sum(value) AS BIGINT) AS value
FROM counters
WHERE agent <> '' AND (CAST(:name AS TEXT) IS NULL OR name = :name)
GROUP BY name, agent, lane, label
ORDER BY name, agent, lane, label

-- name: queue_depths
-- Queued runs per lane and per tenant.
SELECT 'lane' AS kind, lane AS name, CAST(sum(value) AS BIGINT) AS depth
FROM counters WHERE name = 'runs' AND label = 'queued' GROUP BY lane
UNION ALL
SELECT 'tenant', label, CAST(sum(value) AS BIGINT) FROM counters WHERE name = 'queued' GROUP BY label
