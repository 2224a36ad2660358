-- name: start_attempts
INSERT INTO attempts (run_id, number, worker_id, state, started_at)
SELECT item.run_id, item.number, item.worker_id, 'running', :now
FROM @rows(run_id text, number integer, worker_id text) AS item

-- name: finish_attempts
UPDATE attempts
SET state = item.outcome, finished_at = :now, error = item.error,
    steps_executed = item.steps_executed, steps_replayed = item.steps_replayed
FROM @rows(run_id text, number integer, outcome text, error text, steps_executed integer, steps_replayed integer) AS item
WHERE attempts.run_id = item.run_id AND attempts.number = item.number AND attempts.state = 'running'

-- name: running_attempts
-- The attempts of one worker, with what the reaper must know of their runs.
SELECT attempts.run_id, attempts.number, runs.failures, runs.losses, runs.max_attempts, runs.max_losses,
    runs.parent_id
FROM attempts JOIN runs ON runs.id = attempts.run_id
WHERE attempts.worker_id = :worker_id AND attempts.state = 'running'
ORDER BY attempts.run_id

-- name: held_runs
-- What a worker holds, as a claim returns it.
SELECT runs.id, runs.tenant, runs.agent, runs.lane, runs.attempt, runs.failures, runs.losses, runs.max_attempts,
    runs.max_losses, runs.input, runs.parent_id, runs.root_id, runs.deadline_at, runs.created_at,
    runs.cancel_requested_at, runs.user_id, runs.traceparent, :now AS claimed_at
FROM attempts JOIN runs ON runs.id = attempts.run_id AND runs.attempt = attempts.number
WHERE attempts.worker_id = :worker_id AND attempts.state = 'running'

-- name: ended_attempts
-- Those that were settled, other than by the reaper.
SELECT item.run_id, item.number FROM @rows(run_id text, number integer) AS item
JOIN attempts ON attempts.run_id = item.run_id AND attempts.number = item.number
WHERE attempts.state NOT IN ('running', 'lost')

-- name: attempts_of_run
SELECT * FROM attempts WHERE run_id = :run_id ORDER BY number

-- name: resume_point
-- How an attempt ended, how many lines its run has logged by then, and for how long it has worked.
SELECT state, finished_at, (SELECT count(*) FROM run_logs WHERE run_logs.run_id = attempts.run_id) AS lines,
    (SELECT coalesce(sum(past.finished_at - past.started_at), 0) FROM attempts AS past
     WHERE past.run_id = attempts.run_id AND past.finished_at IS NOT NULL) AS worked_us
FROM attempts WHERE run_id = :run_id AND number = :number
