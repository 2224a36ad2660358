-- name: lock_run
SELECT * FROM runs WHERE id = :id FOR NO KEY UPDATE

-- name: lock_runs
SELECT runs.id FROM runs
WHERE runs.id IN (SELECT item.id FROM @rows(id text) AS item)
ORDER BY runs.id
FOR NO KEY UPDATE

-- name: pick_runs
-- What is returned is read where it is locked: another look at the row could see an older version of it.
WITH RECURSIVE room AS MATERIALIZED (
    SELECT lane, reserved, rank AS lane_rank
    FROM jsonb_to_recordset(:room::jsonb) AS item(lane text, reserved integer, rank integer)
), levels (lane, reserved, lane_rank, agent, oldest, newest, priority) AS (
    SELECT room.lane, room.reserved, room.lane_rank, agents.name, agents.oldest, agents.newest,
        (SELECT max(priority) FROM runs
         WHERE available_at IS NOT NULL AND lane = room.lane AND agent = agents.name)
    FROM room, jsonb_to_recordset(:agents::jsonb) AS agents(name text, oldest integer, newest integer)
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
        WHERE name = 'running' AND agent = '' AND lane = shares.lane AND label = shares.tenant), 0)::bigint AS running
    FROM shares
    WHERE shares.tenant NOT IN (SELECT jsonb_array_elements_text(:held_tenants::jsonb))
        AND :now >= (
            SELECT min(available_at) FROM runs
            WHERE available_at IS NOT NULL AND lane = shares.lane AND agent = shares.agent
                AND priority = shares.priority AND tenant = shares.tenant)
), picked AS MATERIALIZED (
    SELECT due.*, open.reserved, open.lane_rank, open.running
    FROM open CROSS JOIN LATERAL (
        SELECT id, state, tenant, agent, lane, priority, available_at, attempt, failures, losses, max_attempts,
            max_losses, input, parent_id, root_id, deadline_at, created_at, cancel_requested_at,
            concurrency_key, user_id, traceparent
        FROM runs
        WHERE runs.available_at <= :now AND runs.lane = open.lane AND runs.agent = open.agent
            AND runs.priority = open.priority AND runs.tenant = open.tenant
            AND (runs.state_version IS NULL OR runs.state_version BETWEEN open.oldest AND open.newest)
            AND (runs.concurrency_key IS NULL OR NOT EXISTS (
                SELECT 1 FROM jsonb_to_recordset(:full_keys::jsonb) AS kept(agent text, key text)
                WHERE kept.agent = runs.agent AND kept.key = runs.concurrency_key))
        ORDER BY runs.available_at
        LIMIT (SELECT CASE WHEN count(*) <= 64 THEN :most::bigint ELSE greatest(1, 64 * :most::bigint / count(*)) END
               FROM open)
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS due
), turns AS (
    SELECT id, lane, priority, available_at, reserved,
        lane_rank + running - min(running) OVER (PARTITION BY lane) AS handicap,
        running + row_number() OVER (PARTITION BY lane, priority, tenant ORDER BY available_at, id) AS turn
    FROM picked
), placed AS (
    SELECT id, handicap, available_at, reserved,
        row_number() OVER (PARTITION BY lane ORDER BY priority DESC, turn, available_at, id) AS place
    FROM turns
), ranked AS (
    SELECT id, place <= reserved AS has_own_slot,
        row_number() OVER (
            PARTITION BY place <= reserved ORDER BY available_at + handicap * :ageing_us::bigint, handicap, place
        ) AS shared_place
    FROM placed
)
SELECT picked.id, state AS was, tenant, agent, lane, attempt + 1 AS attempt, failures, losses, max_attempts, max_losses,
    input, parent_id, root_id, deadline_at, created_at, cancel_requested_at, concurrency_key, user_id,
    traceparent, :now AS claimed_at
FROM ranked JOIN picked ON picked.id = ranked.id
WHERE has_own_slot OR shared_place <= :shared

-- name: next_due
WITH RECURSIVE levels (lane, agent, oldest, newest, priority) AS (
    SELECT lanes.name, agents.name, agents.oldest, agents.newest,
        (SELECT max(priority) FROM runs
         WHERE available_at IS NOT NULL AND lane = lanes.name AND agent = agents.name)
    FROM jsonb_array_elements_text(:lanes::jsonb) AS lanes(name),
        jsonb_to_recordset(:agents::jsonb) AS agents(name text, oldest integer, newest integer)
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
WHERE shares.tenant NOT IN (SELECT jsonb_array_elements_text(:held_tenants::jsonb))
