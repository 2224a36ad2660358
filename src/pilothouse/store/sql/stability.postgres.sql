-- name: running_plan
SELECT stability.*, :now AS now FROM stability WHERE agent = :agent AND state = 'running' FOR UPDATE

-- name: due_plans
SELECT stability.*, :now AS now FROM stability WHERE state = 'running' AND check_at <= :now ORDER BY id LIMIT :limit
FOR UPDATE
