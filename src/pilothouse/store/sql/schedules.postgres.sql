-- name: due_schedules
SELECT schedules.*, :now AS now FROM schedules
WHERE next_fire_at <= :now AND paused_at IS NULL AND removed_at IS NULL
ORDER BY next_fire_at LIMIT :limit
FOR UPDATE

-- name: lock_schedule
SELECT schedules.*, :now AS now FROM schedules WHERE name = :name FOR UPDATE
