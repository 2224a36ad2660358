-- The invariants that `db check` proves. Each statement lists what breaks one; an empty answer is the proof.

-- name: check_running_without_lease
SELECT runs.id AS id, 'state running, attempt ' || runs.attempt AS found
FROM runs
LEFT JOIN attempts ON attempts.run_id = runs.id AND attempts.number = runs.attempt AND attempts.state = 'running'
LEFT JOIN workers ON workers.id = attempts.worker_id AND workers.state IN ('running', 'draining')
WHERE runs.state = 'running' AND (workers.id IS NULL OR workers.lease_until < :now - CAST(:grace_us AS BIGINT))
LIMIT :limit

-- name: check_attempt_not_settled
-- A running attempt is the latest of a running run; any other must have been settled.
SELECT attempts.run_id || '.' || attempts.number AS id, 'attempt running, run ' || runs.state AS found
FROM attempts JOIN runs ON runs.id = attempts.run_id
WHERE attempts.state = 'running' AND (runs.state <> 'running' OR runs.attempt <> attempts.number)
LIMIT :limit

-- name: check_attempts_counted
-- Attempts are numbered 1 to n without a gap, so none was lost or settled in place of another.
SELECT runs.id AS id, 'run says ' || runs.attempt || ' attempts, found ' || count(attempts.number)
    || ' up to ' || coalesce(max(attempts.number), 0) AS found
FROM runs LEFT JOIN attempts ON attempts.run_id = runs.id
GROUP BY runs.id, runs.attempt
HAVING count(attempts.number) <> runs.attempt OR coalesce(max(attempts.number), 0) <> runs.attempt
LIMIT :limit

-- name: check_settled_once
-- An attempt has exactly one audit record of its claim, and one of its end once it has ended; older ones may be pruned.
SELECT attempts.run_id || '.' || attempts.number AS id,
    'claimed ' || coalesce(records.claims, 0) || ' times, settled ' || coalesce(records.settles, 0) || ' times' AS found
FROM attempts LEFT JOIN (
    SELECT entity_id, attempt, sum(CASE WHEN action = 'run.claimed' THEN 1 ELSE 0 END) AS claims,
        sum(CASE WHEN before = 'running' AND after <> 'running' THEN 1 ELSE 0 END) AS settles
    FROM audit WHERE entity = 'run' AND attempt IS NOT NULL GROUP BY entity_id, attempt
) AS records ON records.entity_id = attempts.run_id AND records.attempt = attempts.number
WHERE attempts.started_at > coalesce((SELECT max(pruned_through) FROM audit_seals), -1)
    AND (coalesce(records.claims, 0) <> 1
        OR coalesce(records.settles, 0) <> CASE WHEN attempts.state = 'running' THEN 0 ELSE 1 END)
LIMIT :limit

-- name: check_foreign_checkpoint
SELECT checkpoints.run_id || '/' || checkpoints.key AS id, 'written by attempt ' || checkpoints.attempt AS found
FROM checkpoints
LEFT JOIN attempts ON attempts.run_id = checkpoints.run_id AND attempts.number = checkpoints.attempt
WHERE attempts.run_id IS NULL OR checkpoints.finished_at < attempts.started_at - CAST(:grace_us AS BIGINT)
LIMIT :limit

-- name: check_ended_without_time
SELECT id, state || ', finished_at ' || coalesce(CAST(finished_at AS TEXT), 'empty') AS found
FROM runs
WHERE (state IN ('succeeded', 'failed', 'cancelled')) <> (finished_at IS NOT NULL)
LIMIT :limit

-- name: check_missed_wake
-- A waiting run none of whose wake-ups is due must still wait for something that has not happened.
SELECT runs.id AS id, 'waiting, but ' || waits.kind || ' ' || waits.name || ' has happened' AS found
FROM runs JOIN waits ON waits.run_id = runs.id
WHERE runs.state = 'waiting' AND (runs.available_at IS NULL OR runs.available_at > :now)
    AND ((waits.kind = 'signal' AND EXISTS (
            SELECT 1 FROM signals WHERE signals.run_id = waits.run_id AND signals.name = waits.name))
        OR (waits.kind = 'child' AND EXISTS (
            SELECT 1 FROM runs AS child
            WHERE child.id = waits.name AND child.state IN ('succeeded', 'failed', 'cancelled')))
        OR (waits.kind = 'switch' AND NOT EXISTS (SELECT 1 FROM switches WHERE switches.scope = waits.name))
        OR (waits.kind = 'approval' AND NOT EXISTS (
            SELECT 1 FROM approvals WHERE approvals.id = waits.name AND approvals.state = 'pending')))
LIMIT :limit

-- name: check_wait_without_end
SELECT runs.id AS id, 'waiting for nothing' AS found
FROM runs
WHERE runs.state = 'waiting' AND runs.available_at IS NULL
    AND NOT EXISTS (SELECT 1 FROM waits WHERE waits.run_id = runs.id)
LIMIT :limit

-- name: check_lost_blobs
SELECT run_id || '/' || place AS id, reference || ' is not there' AS found
FROM (
    SELECT id AS run_id, 'input' AS place, input AS reference FROM runs WHERE substr(input, 1, 5) = 'blob:'
    UNION ALL
    SELECT id, 'output', output FROM runs WHERE substr(output, 1, 5) = 'blob:'
    UNION ALL
    SELECT run_id, key, result FROM checkpoints WHERE substr(result, 1, 5) = 'blob:'
) AS referring
WHERE NOT EXISTS (
    SELECT 1 FROM blob_references JOIN blobs ON blobs.hash = blob_references.hash
    WHERE blob_references.run_id = referring.run_id AND blobs.hash = substr(referring.reference, 6))
LIMIT :limit

-- name: check_run_counters
SELECT agent || '/' || lane || '/' || label AS id, 'counter ' || sum(kept) || ', rows ' || sum(found) AS found
FROM (
    SELECT agent, lane, label, value AS kept, 0 AS found FROM counters WHERE name = 'runs'
    UNION ALL
    SELECT agent, lane, state, 0, 1 FROM runs
) AS both_sides
GROUP BY agent, lane, label
HAVING sum(kept) <> sum(found)
LIMIT :limit

-- name: check_tenant_counters
SELECT tenant || '/' || lane AS id, 'counter ' || sum(kept) || ', rows ' || sum(found) AS found
FROM (
    SELECT label AS tenant, lane, value AS kept, 0 AS found FROM counters WHERE name IN ('queued', 'running')
    UNION ALL
    SELECT tenant, '', 0, 1 FROM runs WHERE state = 'queued'
    UNION ALL
    SELECT tenant, lane, 0, 1 FROM runs WHERE state = 'running'
) AS both_sides
GROUP BY tenant, lane
HAVING sum(kept) <> sum(found)
LIMIT :limit

-- name: check_attempt_counters
SELECT agent || '/' || lane || '/' || label AS id, 'counter ' || sum(kept) || ', rows ' || sum(found) AS found
FROM (
    SELECT agent, lane, label, value AS kept, 0 AS found FROM counters WHERE name = 'attempts'
    UNION ALL
    SELECT agent, lane, label, 0, value FROM counters WHERE name = 'pruned_attempts'
    UNION ALL
    SELECT runs.agent, runs.lane, attempts.state, 0, 1
    FROM attempts JOIN runs ON runs.id = attempts.run_id WHERE attempts.state <> 'running'
) AS both_sides
GROUP BY agent, lane, label
HAVING sum(kept) <> sum(found)
LIMIT :limit

-- name: check_sizes
SELECT (SELECT count(*) FROM runs) AS runs, (SELECT count(*) FROM attempts) AS attempts,
    (SELECT count(*) FROM checkpoints) AS checkpoints, (SELECT count(*) FROM balances) AS balances,
    (SELECT count(*) FROM reservations) AS reservations, (SELECT count(*) FROM audit) AS audit,
    (SELECT count(*) FROM erasures) AS erasures, (SELECT count(*) FROM approvals) AS approvals

-- name: check_stray_calls
-- What a run asked and what it cost is written with its steps. Those of attempts before a redrive from the start stay.
SELECT calls.run_id || ' ' || calls.key AS id, 'a call of ' || calls.what || ', and no step' AS found
FROM (
    SELECT run_id, key, attempt, model AS what FROM model_calls
    UNION ALL SELECT run_id, key, attempt, tool FROM tool_calls
) AS calls
LEFT JOIN checkpoints ON checkpoints.run_id = calls.run_id AND checkpoints.key = calls.key
WHERE checkpoints.run_id IS NULL
    AND EXISTS (SELECT 1 FROM checkpoints AS own WHERE own.run_id = calls.run_id AND own.attempt <= calls.attempt)
LIMIT :limit

-- name: check_balances
-- What an account has used in a period is the sum of its entries in the ledger.
SELECT kept.account || ' ' || kept.period AS id, 'balance ' || kept.told || ', ledger ' || kept.found AS found
FROM (
    SELECT balances.account, balances.period,
        balances.settled_microusd || '/' || balances.settled_tokens || '/' || balances.settled_actions || ' settled, '
            || balances.reserved_microusd || '/' || balances.reserved_tokens || '/' || balances.reserved_actions
            || ' reserved' AS told,
        coalesce(sum(ledger.settled_microusd), 0) || '/' || coalesce(sum(ledger.settled_tokens), 0) || '/'
            || coalesce(sum(ledger.settled_actions), 0) || ' settled, ' || coalesce(sum(ledger.reserved_microusd), 0)
            || '/' || coalesce(sum(ledger.reserved_tokens), 0) || '/' || coalesce(sum(ledger.reserved_actions), 0)
            || ' reserved' AS found
    FROM balances LEFT JOIN ledger ON
        CASE balances.period WHEN 'run' THEN balances.account = 'run:' || ledger.run_id
        ELSE balances.period IN (ledger.day, ledger.month) AND balances.account IN ('global',
            'agent:' || ledger.agent, 'platform:' || ledger.platform, 'tenant:' || ledger.tenant,
            'tool:' || ledger.tool, 'user:' || ledger.user_id) END
    GROUP BY balances.account, balances.period
) AS kept
WHERE kept.told <> kept.found
LIMIT :limit

-- name: check_reservations
-- Each is reserved once, and settled once where it is settled.
SELECT reservations.id AS id, reservations.state || ', and ' || count(ledger.seq) || ' entries in the ledger' AS found
FROM reservations LEFT JOIN ledger ON ledger.reservation_id = reservations.id AND ledger.kind IN ('reserve', 'settle')
GROUP BY reservations.id, reservations.state
HAVING count(ledger.seq) <> CASE reservations.state WHEN 'held' THEN 1 ELSE 2 END
    OR sum(CASE ledger.kind WHEN 'reserve' THEN 1 ELSE 0 END) <> 1
LIMIT :limit

-- name: check_erased_tenants
-- What was there when the erasure began; a tenant of the same name that came later has rows of its own.
SELECT erasures.tenant AS id, rest.what || ' of before its erasure ' || erasures.id AS found
FROM erasures JOIN (
    SELECT tenant, 'a run' AS what, created_at AS at FROM runs
    UNION ALL SELECT tenant, 'an effect', intended_at FROM effects
    UNION ALL SELECT tenant, 'an incident', opened_at FROM incidents
    UNION ALL SELECT tenant, 'an effect of an incident', intended_at FROM incident_effects
    UNION ALL SELECT tenant, 'a correction', corrected_at FROM corrections
    UNION ALL SELECT tenant, 'a case', created_at FROM cases
    UNION ALL SELECT tenant, 'an approval', requested_at FROM approvals
    UNION ALL SELECT tenant, 'a reservation', created_at FROM reservations
    UNION ALL SELECT tenant, 'an entry of the ledger', at FROM ledger
    UNION ALL SELECT tenant, 'a memory', updated_at FROM memories
    UNION ALL SELECT tenant, 'a kept answer', created_at FROM model_answers
    UNION ALL SELECT tenant, 'a schedule', registered_at FROM schedules
    UNION ALL SELECT tenant, 'an alert', since FROM alerts
    UNION ALL SELECT tenant, 'a key', created_at FROM api_keys
    UNION ALL SELECT tenant, 'an audit record', at FROM audit
) AS rest ON rest.tenant = erasures.tenant AND rest.at < erasures.started_at
WHERE erasures.state = 'done'
LIMIT :limit

-- name: check_stray_approvals
-- A run that has ended asks nobody any more.
SELECT approvals.id AS id, 'pending, and run ' || approvals.run_id || ' is ' || coalesce(runs.state, 'gone') AS found
FROM approvals LEFT JOIN runs ON runs.id = approvals.run_id
WHERE approvals.state = 'pending' AND (runs.id IS NULL OR runs.state IN ('succeeded', 'failed', 'cancelled'))
LIMIT :limit

-- name: check_votes
-- An approval has the yes of as many people as it needs, each to the arguments that the run went on with.
SELECT approvals.id AS id, 'approved by ' || count(approval_votes.principal) || ' of ' || approvals.quorum AS found
FROM approvals
LEFT JOIN approval_votes ON approval_votes.approval_id = approvals.id AND approval_votes.decision = 'approve'
    AND approval_votes.arguments_hash = coalesce(approvals.decided_hash, approvals.arguments_hash)
WHERE approvals.state = 'approved'
GROUP BY approvals.id, approvals.quorum
HAVING count(approval_votes.principal) < approvals.quorum
LIMIT :limit
