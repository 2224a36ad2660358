-- name: upsert_schedules
INSERT INTO schedules (name, app, agent, cron, timezone, input, lane, priority, tenant, catch_up, catch_up_limit, overlap,
    next_fire_at, registered_at, registered_by)
SELECT item.name, item.app, item.agent, item.cron, item.timezone, item.input, item.lane, item.priority, item.tenant,
    item.catch_up, item.catch_up_limit, item.overlap, item.next_fire_at, :now, item.registered_by
FROM @rows(name text, app text, agent text, cron text, timezone text, input text, lane text, priority integer,
    tenant text, catch_up text, catch_up_limit integer, overlap text, next_fire_at bigint, registered_by text) AS item
WHERE true
ON CONFLICT (name) DO UPDATE SET app = excluded.app, agent = excluded.agent, cron = excluded.cron,
    timezone = excluded.timezone, input = excluded.input, lane = excluded.lane, priority = excluded.priority,
    tenant = excluded.tenant, catch_up = excluded.catch_up, catch_up_limit = excluded.catch_up_limit,
    overlap = excluded.overlap, next_fire_at = excluded.next_fire_at, removed_at = NULL,
    registered_at = excluded.registered_at, registered_by = excluded.registered_by

-- name: list_schedules
SELECT schedules.*, runs.state AS last_run_state
FROM schedules LEFT JOIN runs ON runs.id = schedules.last_run_id
ORDER BY name

-- name: schedules_of_tenant
SELECT schedules.*, runs.state AS last_run_state
FROM schedules LEFT JOIN runs ON runs.id = schedules.last_run_id
WHERE schedules.tenant = :tenant
ORDER BY name

-- name: schedule_by_name
SELECT schedules.*, runs.state AS last_run_state
FROM schedules LEFT JOIN runs ON runs.id = schedules.last_run_id
WHERE schedules.name = :name

-- name: remove_schedules
UPDATE schedules SET removed_at = :now
FROM @rows(name text) AS item
WHERE schedules.name = item.name AND schedules.removed_at IS NULL

-- name: due_schedules
-- The lock makes a second leader, which a stalled one can be, wait and then find them moved on.
SELECT schedules.*, :now AS now FROM schedules
WHERE next_fire_at <= :now AND paused_at IS NULL AND removed_at IS NULL
ORDER BY next_fire_at LIMIT :limit

-- name: lock_schedule
SELECT schedules.*, :now AS now FROM schedules WHERE name = :name

-- name: move_schedule
UPDATE schedules
SET next_fire_at = item.next_fire_at, last_fire_at = item.last_fire_at, last_run_id = item.last_run_id,
    last_error = item.last_error
FROM @rows(name text, expected bigint, next_fire_at bigint, last_fire_at bigint, last_run_id text, last_error text) AS item
WHERE schedules.name = item.name AND schedules.next_fire_at = item.expected
RETURNING schedules.name

-- name: note_fire
UPDATE schedules
SET last_fire_at = :last_fire_at, last_run_id = :last_run_id, last_error = :last_error
WHERE name = :name

-- name: pause_schedule
UPDATE schedules SET paused_at = :now WHERE name = :name AND paused_at IS NULL AND removed_at IS NULL RETURNING name

-- name: resume_schedule
-- What would have fired meanwhile does not: pausing means that it shall not run.
UPDATE schedules SET paused_at = NULL, next_fire_at = :next_fire_at
WHERE name = :name AND paused_at IS NOT NULL AND removed_at IS NULL RETURNING name
