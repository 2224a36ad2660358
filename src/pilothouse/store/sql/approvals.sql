-- name: insert_approvals
-- Whose they are, the run says; who asked, the record of its submit. A round of its own for each time that a step asks.
INSERT INTO approvals (id, run_id, key, round, tenant, agent, fingerprint, kind, action, requested_by, title,
    recommendation, reasoning, risk_assessment, risk, confidence, cost_microusd, billing, people_affected, is_reversible,
    alternatives, arguments, arguments_hash, arguments_schema, reasons, quorum, reviewer, policy_version, on_deadline,
    deadline_at, requested_at, state)
SELECT item.id, item.run_id, item.key,
    coalesce((SELECT max(earlier.round) FROM approvals AS earlier
              WHERE earlier.run_id = item.run_id AND earlier.key = item.key), item.round - 1) + 1,
    runs.tenant, runs.agent, coalesce(runs.fingerprint, ''), item.kind, item.action,
    coalesce((SELECT audit.principal FROM audit
              WHERE audit.entity_id = runs.root_id AND audit.action = 'run.submitted' ORDER BY audit.seq LIMIT 1),
             'run:' || runs.id),
    item.title, item.recommendation, item.reasoning, item.risk_assessment, item.risk, item.confidence,
    item.cost_microusd, item.billing, item.people_affected, item.is_reversible, item.alternatives, item.arguments,
    item.arguments_hash, item.arguments_schema, item.reasons, item.quorum, item.reviewer, item.policy_version,
    item.on_deadline, :now + item.deadline_us, :now, 'pending'
FROM @rows(id text, run_id text, key text, round integer, kind text, action text, title text, recommendation text,
    reasoning text, risk_assessment text, risk integer, confidence double precision, cost_microusd bigint, billing text,
    people_affected integer, is_reversible integer, alternatives text, arguments text, arguments_hash text,
    arguments_schema text, reasons text, quorum integer, reviewer text, policy_version text, on_deadline text,
    deadline_us bigint) AS item
JOIN runs ON runs.id = item.run_id
WHERE true
RETURNING id, run_id, tenant, agent, action, title

-- name: approval_by_id
SELECT approvals.*, :now AS now FROM approvals WHERE id = :id

-- name: lock_approval
SELECT approvals.*, :now AS now FROM approvals WHERE id = :id

-- name: approvals_of_run
SELECT * FROM approvals WHERE run_id = :run_id ORDER BY id

-- name: list_approvals
-- Newest first; the key of a page is the last id of the page before.
SELECT approvals.*, :now AS now FROM approvals
WHERE (CAST(:after AS TEXT) IS NULL OR id < :after)
    AND (CAST(:state AS TEXT) IS NULL OR state = :state)
    AND (CAST(:agent AS TEXT) IS NULL OR agent = :agent)
    AND (CAST(:action AS TEXT) IS NULL OR action = :action)
    AND (CAST(:tenant AS TEXT) IS NULL OR tenant = :tenant)
    AND (CAST(:run_id AS TEXT) IS NULL OR run_id = :run_id)
    AND (CAST(:assigned_to AS TEXT) IS NULL OR assigned_to = :assigned_to)
ORDER BY id DESC
LIMIT :limit

-- name: list_pending_approvals
-- The nearest deadline first, those without one last; `at` and `id` say where the page before ended.
SELECT approvals.*, :now AS now FROM approvals
WHERE state = 'pending'
    AND (CAST(:at AS BIGINT) IS NULL
        OR (coalesce(deadline_at, 999999999999999999), id) > (CAST(:at AS BIGINT), CAST(:id AS TEXT)))
    AND (CAST(:agent AS TEXT) IS NULL OR agent = :agent)
    AND (CAST(:tenant AS TEXT) IS NULL OR tenant = :tenant)
ORDER BY coalesce(deadline_at, 999999999999999999), id
LIMIT :limit

-- name: similar_approvals
-- What people have decided on the same action of the same agent for the same tenant, the latest first.
SELECT id, run_id, title, state, decided_by, decided_at, note, cost_microusd, risk, arguments, decided_arguments
FROM approvals
WHERE agent = :agent AND action = :action AND tenant = :tenant AND id <> :id AND decided_at IS NOT NULL
    AND state IN ('approved', 'rejected', 'returned')
ORDER BY decided_at DESC
LIMIT :limit

-- name: approval_counts
SELECT state, count(*) AS approvals FROM approvals
WHERE state = 'pending' AND (CAST(:tenant AS TEXT) IS NULL OR tenant = :tenant) GROUP BY state

-- name: put_vote
INSERT INTO approval_votes (approval_id, principal, decision, note, at, arguments_hash)
VALUES (:approval_id, :principal, :decision, :note, :now, :arguments_hash)
ON CONFLICT (approval_id, principal)
DO UPDATE SET decision = excluded.decision, note = excluded.note, at = excluded.at,
    arguments_hash = excluded.arguments_hash

-- name: votes_of_approval
SELECT principal, decision, note, at, arguments_hash FROM approval_votes WHERE approval_id = :id ORDER BY at, principal

-- name: decide_approval
-- Where not enough people have said yes it stays pending, with the arguments as the last of them has edited them.
UPDATE approvals
SET state = :state, decision = :decision, note = :note, decided_arguments = :decided_arguments,
    decided_hash = :decided_hash,
    decided_by = CASE WHEN :state = 'pending' THEN NULL ELSE CAST(:decided_by AS TEXT) END,
    decided_at = CASE WHEN :state = 'pending' THEN NULL ELSE CAST(:now AS BIGINT) END
WHERE id = :id AND state = 'pending'
RETURNING id

-- name: delegate_approval
UPDATE approvals SET assigned_to = :assigned_to WHERE id = :id AND state = 'pending' RETURNING id

-- name: due_approvals
SELECT id, run_id FROM approvals
WHERE state = 'pending' AND deadline_at IS NOT NULL AND passed_at IS NULL AND deadline_at <= CAST(:now AS BIGINT)
ORDER BY deadline_at
LIMIT :limit

-- name: pass_deadlines
-- Nobody decided in time: it expires, goes to senior reviewers, or is waited for as before.
UPDATE approvals
SET passed_at = :now,
    state = CASE WHEN approvals.on_deadline = 'expire' THEN 'expired' ELSE approvals.state END,
    decided_at = CASE WHEN approvals.on_deadline = 'expire' THEN CAST(:now AS BIGINT) END,
    reviewer = CASE WHEN approvals.on_deadline = 'escalate' THEN 'admin' ELSE approvals.reviewer END,
    assigned_to = CASE WHEN approvals.on_deadline = 'escalate' THEN approvals.escalate_to ELSE approvals.assigned_to END
FROM @rows(id text) AS item
WHERE approvals.id = item.id AND approvals.state = 'pending' AND approvals.passed_at IS NULL
RETURNING approvals.id, approvals.run_id, approvals.tenant, approvals.agent, approvals.state, approvals.on_deadline,
    approvals.title

-- name: withdraw_approvals
-- Their runs have ended, so nobody needs them any more.
UPDATE approvals SET state = 'withdrawn', decided_at = :now
FROM @rows(run_id text) AS item
WHERE approvals.run_id = item.run_id AND approvals.state = 'pending'
RETURNING approvals.id, approvals.run_id, approvals.tenant

-- name: has_acted
-- Whether an agent has done an action before, as far as the run log and the approvals reach.
SELECT 1 AS known WHERE EXISTS (
    SELECT 1 FROM approvals WHERE agent = :agent AND action = :action AND state = 'approved'
) OR EXISTS (
    SELECT 1 FROM tool_calls JOIN runs ON runs.id = tool_calls.run_id
    WHERE tool_calls.tool = :action AND tool_calls.outcome = 'succeeded' AND runs.agent = :agent
)
