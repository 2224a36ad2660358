-- name: history_totals
-- How all series of a name stood together at every step of a stretch of time, by label; nothing before the first began.
-- One that is counted stood at its first value before it began, so that what it grew by is known from there on.
WITH RECURSIVE grid (at) AS (
    SELECT CAST(:since AS BIGINT)
    UNION ALL
    SELECT at + CAST(:step AS BIGINT) FROM grid WHERE at + CAST(:step AS BIGINT) <= CAST(:until AS BIGINT)
)
SELECT points.label, points.at, CAST(sum(points.value) AS BIGINT) AS value
FROM (
    SELECT chosen.label, grid.at,
        coalesce(
            (SELECT value FROM history WHERE series = chosen.id AND history.at <= grid.at
             ORDER BY history.at DESC LIMIT 1),
            CASE WHEN CAST(:is_counted AS INTEGER) = 1 THEN
                (SELECT value FROM history WHERE series = chosen.id ORDER BY history.at LIMIT 1)
            END) AS value
    FROM history_series AS chosen
    CROSS JOIN grid
    WHERE chosen.name = :name
) AS points
WHERE points.value IS NOT NULL
GROUP BY points.label, points.at
ORDER BY points.at, points.label

-- name: pending_titles
-- The approvals that wait for a person, the nearest deadline first.
SELECT id, title, agent, substr(recommendation, 1, 200) AS recommendation, risk, cost_microusd, deadline_at, requested_at
FROM approvals
WHERE state = 'pending' ORDER BY coalesce(deadline_at, 999999999999999999), id LIMIT :limit

-- name: latest_runs
SELECT id, tenant, agent, lane, priority, state, available_at, attempt, failures, losses, max_attempts, parent_id,
    root_id, cancel_requested_at, progress_done, progress_total, dismissed_at, created_at, started_at, finished_at,
    deadline_at, error, idempotency_key, fingerprint
FROM runs ORDER BY id DESC LIMIT :limit
