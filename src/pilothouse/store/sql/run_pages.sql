-- name: shown_steps
-- What steps were asked and have answered, as far as it is shown; the lengths are those of the whole texts.
SELECT steps.key, steps.attempt, steps.kind, steps.error, steps.tries,
    length(steps.request) AS request_length, substr(steps.request, 1, CAST(:most AS INTEGER)) AS request,
    length(coalesce(blobs.payload, steps.result)) AS result_length,
    substr(coalesce(blobs.payload, steps.result), 1, CAST(:most AS INTEGER)) AS result
FROM checkpoints AS steps
LEFT JOIN blobs ON substr(steps.result, 1, 5) = 'blob:' AND blobs.hash = substr(steps.result, 6)
WHERE steps.run_id = :run_id
ORDER BY steps.started_at, steps.key
LIMIT :limit

-- name: whole_step
SELECT request, result, error FROM checkpoints WHERE run_id = :run_id AND key = :key

-- name: family_of_run
-- A root and what came of it, parents first, as far as it is shown.
WITH RECURSIVE family (id, depth) AS (
    SELECT id, 0 FROM runs WHERE id = :root_id
    UNION
    SELECT runs.id, family.depth + 1 FROM runs JOIN family ON runs.parent_id = family.id
)
SELECT runs.id, runs.parent_id, runs.agent, runs.state, runs.cancel_requested_at, runs.created_at, runs.started_at,
    runs.finished_at
FROM runs JOIN family ON family.id = runs.id
ORDER BY family.depth, runs.id
LIMIT :limit
