-- name: recovery_figures
-- What crashes cost: attempts lost with their worker, runs that went on to succeed, steps that did not run again.
SELECT (SELECT count(*) FROM attempts WHERE state = 'lost') AS lost,
    (SELECT count(*) FROM runs WHERE state = 'succeeded' AND EXISTS (
        SELECT 1 FROM attempts WHERE attempts.run_id = runs.id AND attempts.state = 'lost')) AS recovered,
    (SELECT coalesce(sum(steps_replayed), 0) FROM attempts) AS replayed,
    (SELECT count(*) FROM checkpoints WHERE kind = 'step') AS steps

-- name: step_writers
-- Which attempt wrote each step's checkpoint.
SELECT run_id, key, attempt FROM checkpoints WHERE kind = 'step'
