-- name: insert_plan
INSERT INTO stability (id, agent, fingerprint, state, stage, day_us, target_level, target_actions, started_at,
    started_by, stage_at, check_at, audit_from, before)
VALUES (:id, :agent, :fingerprint, 'running', 1, :day_us, :target_level, :target_actions, :now, :started_by, :now,
    :now, :audit_from, :before)
ON CONFLICT DO NOTHING
RETURNING id

-- name: list_plans
-- Those under way first, then the latest.
SELECT stability.*, :now AS now FROM stability
WHERE CAST(:agent AS TEXT) IS NULL OR agent = :agent
ORDER BY CASE WHEN state = 'running' THEN 0 ELSE 1 END, id DESC LIMIT :limit

-- name: running_plan
SELECT stability.*, :now AS now FROM stability WHERE agent = :agent AND state = 'running'

-- name: any_plan_due
SELECT max(stage) AS stage FROM stability WHERE state = 'running' AND check_at <= :now

-- name: due_plans
SELECT stability.*, :now AS now FROM stability WHERE state = 'running' AND check_at <= :now ORDER BY id LIMIT :limit

-- name: move_plan
UPDATE stability SET stage = :stage, stage_at = :stage_at, check_at = :check_at, report = :report
WHERE id = :id AND state = 'running' AND stage = :expected
RETURNING id

-- name: end_plan
UPDATE stability SET state = :state, ended_at = :now, reason = :reason, report = :report
WHERE id = :id AND state = 'running'
RETURNING id

-- name: score_plan
UPDATE stability SET scores = :scores WHERE agent = :agent AND fingerprint = :fingerprint AND state = 'running'

-- name: first_memos
-- What a person, or the check before one, made of the first submission of each memo.
SELECT count(*) AS decided,
    count(CASE WHEN decision = 'approve' AND (decided_hash IS NULL OR decided_hash = arguments_hash) THEN 1 END) AS approved
FROM approvals AS memo
WHERE memo.agent = :agent AND memo.requested_at >= :since AND memo.state IN ('approved', 'rejected', 'returned')
    AND NOT EXISTS (
        SELECT 1 FROM approvals AS earlier
        WHERE earlier.run_id = memo.run_id AND earlier.key = memo.key AND earlier.round < memo.round)

-- name: count_actions
-- Calls that changed the world; without a trail where the audit does not know the attempt that made it.
SELECT count(*) AS done,
    count(CASE WHEN NOT EXISTS (
        SELECT 1 FROM audit
        WHERE audit.entity_id = tool_calls.run_id AND audit.action = 'run.claimed'
            AND audit.attempt = tool_calls.attempt) THEN 1 END) AS untraced
FROM tool_calls JOIN runs ON runs.id = tool_calls.run_id
WHERE runs.agent = :agent AND tool_calls.started_at >= :since AND tool_calls.outcome = 'succeeded'
    AND tool_calls.effect IN ('idempotent', 'write', 'irreversible')

-- name: count_unrecorded_effects
-- Effects that took place of which no call tells, nor who said that they did, nor the audit.
SELECT count(*) AS unrecorded FROM effects
WHERE effects.agent = :agent AND effects.intended_at >= :since AND effects.state = 'succeeded'
    AND effects.resolved_by IS NULL
    AND NOT EXISTS (
        SELECT 1 FROM tool_calls WHERE tool_calls.run_id = effects.run_id AND tool_calls.key = effects.key)
    AND NOT EXISTS (SELECT 1 FROM audit WHERE audit.entity_id = effects.id)

-- name: workers_since
SELECT agents, state, started_at, renewed_at, lease_until, stopped_at, :now AS now FROM workers
WHERE stopped_at IS NULL OR stopped_at >= :since
ORDER BY started_at, id
