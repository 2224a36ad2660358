-- name: insert_runs
-- A key that exists already inserts nothing; the caller then reads what is there.
INSERT INTO runs (id, tenant, agent, lane, priority, state, available_at, max_attempts, max_losses,
    run_timeout_us, deadline_at, input, idempotency_key, parent_id, root_id, webhook_url,
    concurrency_key, user_id, traceparent, created_at)
SELECT item.id, item.tenant, item.agent, item.lane, item.priority, 'queued', coalesce(item.available_at, :now),
    item.max_attempts, item.max_losses, item.run_timeout_us,
    coalesce(item.available_at, :now) + item.run_timeout_us,
    item.input, item.idempotency_key, item.parent_id, item.root_id, item.webhook_url, item.concurrency_key,
    item.user_id, item.traceparent, :now
FROM @rows(id text, tenant text, agent text, lane text, priority integer, available_at bigint, max_attempts integer,
    max_losses integer, run_timeout_us bigint, input text, idempotency_key text, parent_id text, root_id text,
    webhook_url text, concurrency_key text, user_id text, traceparent text) AS item
WHERE true
ON CONFLICT DO NOTHING
RETURNING id

-- name: runs_by_idempotency_key
SELECT item.id AS wanted_id, runs.id, runs.agent, runs.input, runs.state
FROM @rows(id text, tenant text, idempotency_key text) AS item
JOIN runs ON runs.tenant = item.tenant AND runs.idempotency_key = item.idempotency_key

-- name: run_by_id
SELECT * FROM runs WHERE id = :id

-- name: lock_run
SELECT * FROM runs WHERE id = :id

-- name: lock_runs
-- In one order, so that two transactions never wait for each other in a circle. On SQLite the writer is alone anyway.
SELECT item.id FROM @rows(id text) AS item WHERE false

-- name: list_dead
-- The dead letters: failed runs that nobody has redriven or dismissed.
SELECT id, tenant, agent, lane, state, attempt, failures, losses, max_attempts, parent_id, created_at, finished_at, error
FROM runs
WHERE state = 'failed' AND dismissed_at IS NULL
    AND (CAST(:after AS TEXT) IS NULL OR id < :after)
    AND (CAST(:agent AS TEXT) IS NULL OR agent = :agent)
    AND (CAST(:tenant AS TEXT) IS NULL OR tenant = :tenant)
    AND (CAST(:error_type AS TEXT) IS NULL OR error LIKE '%"type":"' || :error_type || '"%')
ORDER BY id DESC
LIMIT :limit

-- name: pick_runs
-- For each lane that has room and each agent this worker knows: walk the priorities that exist (`levels`) and the tenants
-- of each (`shares`), one index probe each; take the oldest due rows of each share, so that a tenant's turn comes by how
-- many of its runs run already; then let lanes fill their reserved slots and compete for shared ones. A lane's rank costs
-- it one ageing interval each, so that an old run of a lower lane comes before a young one above; so does each run that a
-- tenant runs more than another. Where many tenants have something due, a few rows of each are enough.
WITH RECURSIVE room AS (
    SELECT item.value ->> 'lane' AS lane, item.value ->> 'reserved' AS reserved, item.value ->> 'rank' AS lane_rank
    FROM json_each(:room) AS item
), levels (lane, reserved, lane_rank, agent, oldest, newest, priority) AS (
    SELECT room.lane, room.reserved, room.lane_rank, agents.value ->> 'name', agents.value ->> 'oldest',
        agents.value ->> 'newest',
        (SELECT max(priority) FROM runs
         WHERE available_at IS NOT NULL AND lane = room.lane AND agent = agents.value ->> 'name')
    FROM room, json_each(:agents) AS agents
    UNION ALL
    SELECT lane, reserved, lane_rank, agent, oldest, newest,
        (SELECT max(priority) FROM runs
         WHERE available_at IS NOT NULL AND lane = levels.lane AND agent = levels.agent
             AND priority < levels.priority)
    FROM levels WHERE levels.priority IS NOT NULL
), shares (lane, reserved, lane_rank, agent, oldest, newest, priority, tenant) AS (
    SELECT lane, reserved, lane_rank, agent, oldest, newest, priority,
        (SELECT min(tenant) FROM runs
         WHERE available_at IS NOT NULL AND lane = levels.lane AND agent = levels.agent AND priority = levels.priority)
    FROM levels WHERE levels.priority IS NOT NULL
    UNION ALL
    SELECT lane, reserved, lane_rank, agent, oldest, newest, priority,
        (SELECT min(tenant) FROM runs
         WHERE available_at IS NOT NULL AND lane = shares.lane AND agent = shares.agent AND priority = shares.priority
             AND tenant > shares.tenant)
    FROM shares WHERE shares.tenant IS NOT NULL
), open AS MATERIALIZED (
    SELECT shares.*, coalesce((
        SELECT sum(value) FROM counters
        WHERE name = 'running' AND agent = '' AND lane = shares.lane AND label = shares.tenant), 0) AS running
    FROM shares
    WHERE shares.tenant NOT IN (SELECT value FROM json_each(:held_tenants))
        AND :now >= (
            SELECT min(available_at) FROM runs
            WHERE available_at IS NOT NULL AND lane = shares.lane AND agent = shares.agent
                AND priority = shares.priority AND tenant = shares.tenant)
), picked AS MATERIALIZED (
    SELECT runs.rowid AS row, runs.id, runs.priority, runs.available_at, runs.tenant, open.lane, open.reserved,
        open.lane_rank, open.running
    FROM open JOIN runs ON runs.rowid IN (
        SELECT rowid FROM runs AS due
        WHERE due.available_at <= :now AND due.lane = open.lane AND due.agent = open.agent
            AND due.priority = open.priority AND due.tenant = open.tenant
            AND (due.state_version IS NULL OR due.state_version BETWEEN open.oldest AND open.newest)
            AND (due.concurrency_key IS NULL OR NOT EXISTS (
                SELECT 1 FROM json_each(:full_keys) AS kept
                WHERE kept.value ->> 'agent' = due.agent AND kept.value ->> 'key' = due.concurrency_key))
        ORDER BY due.available_at
        LIMIT (SELECT CASE WHEN count(*) <= 64 THEN :most ELSE max(1, 64 * :most / count(*)) END FROM open)
    )
), turns AS (
    SELECT row, id, lane, priority, available_at, reserved,
        lane_rank + running - min(running) OVER (PARTITION BY lane) AS handicap,
        running + row_number() OVER (PARTITION BY lane, priority, tenant ORDER BY available_at, id) AS turn
    FROM picked
), placed AS (
    SELECT row, handicap, available_at, reserved,
        row_number() OVER (PARTITION BY lane ORDER BY priority DESC, turn, available_at, id) AS place
    FROM turns
), ranked AS (
    SELECT row, place <= reserved AS has_own_slot,
        row_number() OVER (
            PARTITION BY place <= reserved ORDER BY available_at + handicap * :ageing_us, handicap, place
        ) AS shared_place
    FROM placed
)
SELECT json_group_array(json_object('id', id, 'was', state, 'tenant', tenant, 'agent', agent, 'lane', lane,
    'attempt', attempt + 1, 'failures', failures, 'losses', losses, 'max_attempts', max_attempts,
    'max_losses', max_losses, 'input', input, 'parent_id', parent_id, 'root_id', root_id, 'deadline_at', deadline_at,
    'created_at', created_at, 'cancel_requested_at', cancel_requested_at, 'concurrency_key', concurrency_key, 'user_id', user_id,
    'traceparent', traceparent,
    'claimed_at', :now)) AS rows_json
FROM ranked JOIN runs ON runs.rowid = ranked.row
WHERE has_own_slot OR shared_place <= :shared

-- name: next_due
-- When the next run of these agents becomes eligible: one index probe per lane, agent, priority and tenant that exists.
WITH RECURSIVE levels (lane, agent, oldest, newest, priority) AS (
    SELECT lanes.value, agents.value ->> 'name', agents.value ->> 'oldest', agents.value ->> 'newest',
        (SELECT max(priority) FROM runs
         WHERE available_at IS NOT NULL AND lane = lanes.value AND agent = agents.value ->> 'name')
    FROM json_each(:lanes) AS lanes, json_each(:agents) AS agents
    UNION ALL
    SELECT lane, agent, oldest, newest,
        (SELECT max(priority) FROM runs
         WHERE available_at IS NOT NULL AND lane = levels.lane AND agent = levels.agent
             AND priority < levels.priority)
    FROM levels WHERE levels.priority IS NOT NULL
), shares (lane, agent, oldest, newest, priority, tenant) AS (
    SELECT lane, agent, oldest, newest, priority,
        (SELECT min(tenant) FROM runs
         WHERE available_at IS NOT NULL AND lane = levels.lane AND agent = levels.agent AND priority = levels.priority)
    FROM levels WHERE levels.priority IS NOT NULL
    UNION ALL
    SELECT lane, agent, oldest, newest, priority,
        (SELECT min(tenant) FROM runs
         WHERE available_at IS NOT NULL AND lane = shares.lane AND agent = shares.agent AND priority = shares.priority
             AND tenant > shares.tenant)
    FROM shares WHERE shares.tenant IS NOT NULL
)
SELECT min((SELECT min(available_at) FROM runs
            WHERE available_at IS NOT NULL AND lane = shares.lane AND agent = shares.agent
                AND priority = shares.priority AND tenant = shares.tenant
                AND (state_version IS NULL OR state_version BETWEEN shares.oldest AND shares.newest))) AS due_at,
    :now AS now
FROM shares
WHERE shares.tenant NOT IN (SELECT value FROM json_each(:held_tenants))

-- name: take_runs
-- Those that were just picked: nobody else can have them.
UPDATE runs
SET state = 'running', available_at = NULL, attempt = item.attempt, state_version = item.state_version,
    started_at = coalesce(started_at, item.claimed_at), fingerprint = coalesce(runs.fingerprint, item.fingerprint)
FROM @rows(id text, attempt integer, claimed_at bigint, state_version integer, fingerprint text) AS item
WHERE runs.id = item.id AND runs.state IN ('queued', 'waiting') AND runs.available_at IS NOT NULL

-- name: settle_runs
-- Only the attempt that holds the run can settle it. A cancel that was asked for meanwhile wins over going on.
UPDATE runs
SET state = CASE
        WHEN cancel_requested_at IS NOT NULL AND item.state IN ('queued', 'waiting', 'failed') THEN 'cancelled'
        ELSE item.state END,
    available_at = CASE
        WHEN cancel_requested_at IS NOT NULL THEN NULL
        WHEN item.state = 'queued' THEN :now + item.delay_us
        WHEN item.state = 'waiting' THEN item.wake_at END,
    output = item.output,
    error = item.error,
    failures = failures + item.failure,
    losses = losses + item.loss,
    finished_at = CASE
        WHEN item.state IN ('succeeded', 'failed', 'cancelled') OR cancel_requested_at IS NOT NULL THEN :now END
FROM @rows(run_id text, attempt integer, state text, delay_us bigint, wake_at bigint, output text, error text,
    failure integer, loss integer) AS item
WHERE runs.id = item.run_id AND (runs.attempt = item.attempt AND runs.state = 'running') IS TRUE
RETURNING runs.id, runs.tenant, runs.agent, runs.lane, runs.state, runs.attempt, runs.parent_id, runs.started_at,
    runs.finished_at, runs.webhook_url

-- name: wake_unblocked
-- Wakes the waiting runs that have a wait group with nothing left in it.
UPDATE runs
SET available_at = :now
FROM @rows(run_id text, wait_group text) AS item
WHERE runs.id = item.run_id AND runs.state = 'waiting'
    AND NOT EXISTS (SELECT 1 FROM waits WHERE waits.run_id = item.run_id AND waits.wait_group = item.wait_group)
RETURNING runs.id

-- name: descendants
-- The run and everything it started, and what those started, as far as it has not ended.
WITH RECURSIVE lineage (id) AS (
    SELECT id FROM runs WHERE id = :id
    UNION
    SELECT runs.id FROM runs JOIN lineage ON runs.parent_id = lineage.id
)
SELECT runs.id FROM runs JOIN lineage ON lineage.id = runs.id
WHERE runs.state IN ('queued', 'waiting', 'running')
ORDER BY runs.id

-- name: lineage_of_run
-- The same, with what people want to know of each.
WITH RECURSIVE lineage (id) AS (
    SELECT id FROM runs WHERE id = :id
    UNION
    SELECT runs.id FROM runs JOIN lineage ON runs.parent_id = lineage.id
)
SELECT runs.id, runs.tenant, runs.agent, runs.lane, runs.state, runs.parent_id, runs.cancel_requested_at, runs.created_at
FROM runs JOIN lineage ON lineage.id = runs.id
WHERE runs.state IN ('queued', 'waiting', 'running')
ORDER BY runs.id

-- name: held_reservations
-- What calls that are under way may use at most, until it is known what they did use.
SELECT reservations.id, reservations.run_id, reservations.key, reservations.tool, reservations.model,
    reservations.microusd, reservations.tokens, reservations.actions, reservations.created_at
FROM @rows(run_id text) AS item JOIN reservations ON reservations.run_id = item.run_id
WHERE reservations.state = 'held'

-- name: open_states
SELECT runs.id, runs.state FROM @rows(id text) AS item JOIN runs ON runs.id = item.id
WHERE runs.state IN ('queued', 'waiting', 'running')

-- name: cancel_idle_runs
-- The state it leaves is given and checked, so that the audit and the counters say what was.
UPDATE runs
SET state = 'cancelled', available_at = NULL, finished_at = :now, cancel_requested_at = :now, error = item.error
FROM @rows(id text, was text, error text) AS item
WHERE runs.id = item.id AND runs.state = item.was AND runs.state IN ('queued', 'waiting')
RETURNING runs.id, tenant, agent, lane, state, attempt, parent_id, webhook_url

-- name: request_cancel
UPDATE runs
SET cancel_requested_at = :now
FROM @rows(id text) AS item
WHERE runs.id = item.id AND runs.state = 'running' AND runs.cancel_requested_at IS NULL
RETURNING runs.id, tenant, agent, lane, attempt

-- name: cancelling_runs
-- The running runs of a worker whose cancel was asked for.
SELECT runs.id, runs.attempt FROM runs
JOIN attempts ON attempts.run_id = runs.id AND attempts.number = runs.attempt
WHERE runs.state = 'running' AND runs.cancel_requested_at IS NOT NULL
    AND attempts.worker_id = :worker_id AND attempts.state = 'running'

-- name: redrive_runs
UPDATE runs
SET state = 'queued', available_at = :now, failures = 0, losses = 0, error = NULL, finished_at = NULL,
    dismissed_at = NULL, cancel_requested_at = NULL, deadline_at = :now + run_timeout_us
FROM @rows(id text) AS item
WHERE runs.id = item.id AND runs.state = 'failed'
RETURNING runs.id, tenant, agent, lane, attempt

-- name: dismiss_runs
UPDATE runs
SET dismissed_at = :now
FROM @rows(id text) AS item
WHERE runs.id = item.id AND runs.state = 'failed' AND runs.dismissed_at IS NULL
RETURNING runs.id, tenant, agent, lane, attempt

-- name: set_progress
UPDATE runs
SET progress_done = item.done, progress_total = item.total
FROM @rows(run_id text, attempt integer, done bigint, total bigint) AS item
WHERE runs.id = item.run_id AND runs.attempt = item.attempt AND runs.state = 'running'

-- name: child_states
SELECT runs.id, runs.state, runs.output, runs.error, runs.parent_id
FROM @rows(id text) AS item JOIN runs ON runs.id = item.id

-- name: oldest_due
-- Of each queue: one index probe per priority and tenant that exists.
WITH RECURSIVE levels (agent, lane, priority) AS (
    SELECT item.agent, item.lane,
        (SELECT max(priority) FROM runs WHERE available_at IS NOT NULL AND lane = item.lane AND agent = item.agent)
    FROM @rows(agent text, lane text) AS item
    UNION ALL
    SELECT agent, lane, (SELECT max(runs.priority) FROM runs
                         WHERE available_at IS NOT NULL AND runs.lane = levels.lane AND runs.agent = levels.agent
                             AND runs.priority < levels.priority)
    FROM levels WHERE levels.priority IS NOT NULL
), shares (agent, lane, priority, tenant) AS (
    SELECT agent, lane, priority, (SELECT min(runs.tenant) FROM runs
                                   WHERE available_at IS NOT NULL AND runs.lane = levels.lane
                                       AND runs.agent = levels.agent AND runs.priority = levels.priority)
    FROM levels WHERE levels.priority IS NOT NULL
    UNION ALL
    SELECT agent, lane, priority, (SELECT min(runs.tenant) FROM runs
                                   WHERE available_at IS NOT NULL AND runs.lane = shares.lane
                                       AND runs.agent = shares.agent AND runs.priority = shares.priority
                                       AND runs.tenant > shares.tenant)
    FROM shares WHERE shares.tenant IS NOT NULL
)
SELECT agent, lane, :now AS now,
    min((SELECT min(available_at) FROM runs
         WHERE available_at IS NOT NULL AND runs.lane = shares.lane AND runs.agent = shares.agent
             AND runs.priority = shares.priority AND runs.tenant = shares.tenant)) AS oldest
FROM shares
GROUP BY agent, lane

-- name: current_instant
SELECT :now AS now

-- name: busy_run
-- Any run that is running or due.
SELECT id FROM (
    SELECT run_id AS id FROM attempts WHERE state = 'running'
    UNION ALL
    SELECT id FROM runs WHERE available_at <= :now
) AS busy LIMIT 1

-- name: agents_of_runs
SELECT runs.id, runs.agent FROM @rows(id text) AS item JOIN runs ON runs.id = item.id
