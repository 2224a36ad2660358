-- name: backlogs
-- What waits for people, as far as `most`, and since when the audit is not sealed. Each is read off an index of its own.
SELECT (SELECT count(*) FROM (SELECT 1 AS one FROM approvals WHERE state = 'pending' LIMIT :most) AS pending) AS approvals,
    (SELECT min(deadline_at) FROM approvals
     WHERE state = 'pending' AND deadline_at IS NOT NULL AND passed_at IS NULL) AS next_deadline,
    (SELECT count(*) FROM (
        SELECT 1 AS one FROM effects
        WHERE effects.state IN ('intended', 'unknown') AND (effects.state = 'unknown' OR NOT EXISTS (
            SELECT 1 FROM attempts WHERE attempts.run_id = effects.run_id AND attempts.number = effects.attempt
                AND attempts.state = 'running'))
        LIMIT :most) AS unknown_effects) AS effects,
    (SELECT count(*) FROM (
        SELECT 1 AS one FROM runs WHERE state = 'failed' AND dismissed_at IS NULL LIMIT :most) AS letters) AS dead,
    (SELECT count(*) FROM switches) AS switches,
    (SELECT at FROM audit
     WHERE seq > coalesce((SELECT last_seq FROM audit_seals ORDER BY number DESC LIMIT 1), 0)
     ORDER BY seq LIMIT 1) AS unsealed_at,
    :now AS now

-- name: agent_versions
SELECT name, app, fingerprint, state_version, definition, registered_at, :now AS now FROM agents ORDER BY name

-- name: leased_workers
-- The workers that hold a lease.
SELECT id, state, slots, is_enabled, renewed_at, :now AS now FROM workers
WHERE state IN ('running', 'draining') AND lease_until >= :now
