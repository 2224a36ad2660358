-- name: standings
-- What is said of an action, of its version and of its agent, by the database and by the agent's App.
SELECT fingerprint, action, level, asks_outward, least_confidence, since, counted_from FROM autonomy
WHERE agent = :agent
    AND ((fingerprint = :fingerprint AND action IN (:action, '*')) OR (fingerprint = '*' AND action = '*'))
UNION ALL
SELECT '*', '*', autonomy, 0, NULL, 0, 0 FROM agents WHERE name = :agent AND autonomy IS NOT NULL

-- name: set_autonomy
INSERT INTO autonomy (agent, fingerprint, action, level, asks_outward, least_confidence, since, counted_from, set_by,
    reason)
VALUES (:agent, :fingerprint, :action, :level, :asks_outward, :least_confidence,
    coalesce(CAST(:since AS BIGINT), :now), coalesce(CAST(:counted_from AS BIGINT), :now), :set_by, :reason)
ON CONFLICT (agent, fingerprint, action) DO UPDATE SET level = excluded.level, asks_outward = excluded.asks_outward,
    least_confidence = excluded.least_confidence, since = excluded.since, counted_from = excluded.counted_from,
    set_by = excluded.set_by, reason = excluded.reason

-- name: autonomy_row
SELECT agent, fingerprint, action, level, asks_outward, least_confidence, since, counted_from, set_by, reason
FROM autonomy WHERE agent = :agent AND fingerprint = :fingerprint AND action = :action

-- name: delete_autonomy
DELETE FROM autonomy WHERE agent = :agent AND fingerprint = :fingerprint AND action = :action

-- name: autonomy_subjects
-- Every version and action of which a level was set or a decision asked.
SELECT agent, fingerprint, action FROM autonomy WHERE CAST(:agent AS TEXT) IS NULL OR agent = :agent
UNION
SELECT agent, fingerprint, action FROM approvals WHERE CAST(:agent AS TEXT) IS NULL OR agent = :agent
ORDER BY agent, fingerprint, action LIMIT :limit

-- name: count_decisions
-- Approved is what went out as it was proposed. The decision that demoted an action is no evidence for it.
SELECT count(*) AS decided,
    count(CASE WHEN decision = 'approve' AND (decided_hash IS NULL OR decided_hash = arguments_hash) THEN 1 END) AS approved
FROM approvals
WHERE agent = :agent AND fingerprint = :fingerprint AND action = :action AND decided_at > :since
    AND decision IN ('approve', 'edit', 'reject', 'revise')

-- name: latest_decisions
SELECT decision FROM approvals
WHERE agent = :agent AND fingerprint = :fingerprint AND action = :action AND decided_at >= :since
    AND decision IN ('approve', 'edit', 'reject', 'revise')
ORDER BY decided_at DESC, id DESC LIMIT :limit

-- name: count_recorded
-- What the audit says of an agent or of its runs.
SELECT count(*) AS recorded FROM audit
WHERE audit.seq > :after AND audit.at >= :since AND audit.action = :action
    AND (audit.entity_id = :agent
        OR EXISTS (SELECT 1 FROM runs WHERE runs.id = coalesce(audit.run_id, audit.entity_id) AND runs.agent = :agent))
