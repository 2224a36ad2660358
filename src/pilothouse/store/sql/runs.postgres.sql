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
), picked AS MATERIALIZED (
    SELECT due.*, levels.reserved, levels.lane_rank
    FROM levels CROSS JOIN LATERAL (
        SELECT id, state, tenant, agent, lane, priority, available_at, attempt, failures, losses, max_attempts,
            max_losses, input, parent_id, root_id, deadline_at, created_at, cancel_requested_at
        FROM runs
        WHERE runs.available_at <= :now AND runs.lane = levels.lane AND runs.agent = levels.agent
            AND runs.priority = levels.priority
            AND (runs.state_version IS NULL OR runs.state_version BETWEEN levels.oldest AND levels.newest)
        ORDER BY runs.available_at LIMIT :most
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS due
), placed AS (
    SELECT id, lane_rank, available_at, reserved,
        row_number() OVER (PARTITION BY lane ORDER BY priority DESC, available_at, id) AS place
    FROM picked
), ranked AS (
    SELECT id, place <= reserved AS has_own_slot,
        row_number() OVER (
            PARTITION BY place <= reserved ORDER BY available_at + lane_rank * :ageing_us::bigint, lane_rank, place
        ) AS shared_place
    FROM placed
)
SELECT picked.id, state AS was, tenant, agent, lane, attempt + 1 AS attempt, failures, losses, max_attempts, max_losses,
    input, parent_id, root_id, deadline_at, created_at, cancel_requested_at, :now AS claimed_at
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
)
SELECT min((SELECT min(available_at) FROM runs
            WHERE available_at IS NOT NULL AND lane = levels.lane AND agent = levels.agent
                AND priority = levels.priority
                AND (state_version IS NULL OR state_version BETWEEN levels.oldest AND levels.newest))) AS due_at,
    :now AS now
FROM levels
