-- name: upsert_agents
-- What a worker registers when it starts. The newest registration wins.
INSERT INTO agents (name, app, description, lane, priority, max_attempts, max_losses, timeout_us, run_timeout_us,
    input_schema, output_schema, state_version, fingerprint, max_running, max_running_per_key, autonomy, definition,
    registered_at, registered_by)
SELECT item.name, item.app, item.description, item.lane, item.priority, item.max_attempts, item.max_losses,
    item.timeout_us, item.run_timeout_us, item.input_schema, item.output_schema, item.state_version, item.fingerprint,
    item.max_running, item.max_running_per_key, item.autonomy, item.definition, :now,
    item.registered_by
FROM @rows(name text, app text, description text, lane text, priority integer, max_attempts integer,
    max_losses integer, timeout_us bigint, run_timeout_us bigint, input_schema text, output_schema text,
    state_version integer, fingerprint text, max_running integer, max_running_per_key integer, autonomy text,
    definition text, registered_by text) AS item
WHERE true
ON CONFLICT (name) DO UPDATE SET app = excluded.app, description = excluded.description, lane = excluded.lane,
    priority = excluded.priority, max_attempts = excluded.max_attempts, max_losses = excluded.max_losses,
    timeout_us = excluded.timeout_us, run_timeout_us = excluded.run_timeout_us,
    input_schema = excluded.input_schema, output_schema = excluded.output_schema,
    state_version = excluded.state_version, fingerprint = excluded.fingerprint,
    max_running = excluded.max_running, max_running_per_key = excluded.max_running_per_key,
    autonomy = excluded.autonomy, definition = excluded.definition,
    registered_at = excluded.registered_at, registered_by = excluded.registered_by

-- name: list_agents
SELECT * FROM agents ORDER BY name

-- name: agents_by_name
SELECT agents.* FROM @rows(name text) AS item JOIN agents ON agents.name = item.name
