-- name: deed_by_id
-- An effect with what it is compared by.
SELECT effects.*, coalesce(runs.root_id, effects.run_id) AS root_id
FROM effects LEFT JOIN runs ON runs.id = effects.run_id WHERE effects.id = :id

-- name: deeds_like
-- Whatever may be a sibling: the same call first, then those of the same lineage, of each the newest.
SELECT effects.*, coalesce(runs.root_id, effects.run_id) AS root_id,
    EXISTS (SELECT 1 FROM attempts WHERE attempts.run_id = effects.run_id AND attempts.number = effects.attempt
        AND attempts.state = 'running') AS is_under_way
FROM effects LEFT JOIN runs ON runs.id = effects.run_id
WHERE effects.id IN (
        SELECT alike.id FROM effects AS alike WHERE alike.arguments_hash = :arguments_hash AND alike.tool = :tool
        UNION SELECT alike.id FROM effects AS alike
        WHERE alike.tool = :tool AND alike.intended_at BETWEEN CAST(:earliest AS BIGINT) AND CAST(:latest AS BIGINT)
            AND alike.agent = :agent
        UNION SELECT alike.id FROM effects AS alike JOIN runs AS own ON own.id = alike.run_id
        WHERE own.root_id = :root_id)
    AND effects.id <> :id AND effects.corrects IS NULL
    AND (CAST(:tenant AS TEXT) IS NULL OR effects.tenant = :tenant)
ORDER BY CASE WHEN effects.arguments_hash = :arguments_hash AND effects.tool = :tool THEN 0
        WHEN coalesce(runs.root_id, effects.run_id) = :root_id THEN 1 ELSE 2 END,
    effects.intended_at DESC, effects.id DESC LIMIT :limit

-- name: insert_incident
INSERT INTO incidents (id, state, severity, effect_id, run_id, tenant, agent, tool, fingerprint, reason, hours,
    opened_at, opened_by)
VALUES (:id, 'open', :severity, :effect_id, :run_id, :tenant, :agent, :tool, :fingerprint, :reason, :hours, :now,
    :opened_by)
ON CONFLICT DO NOTHING RETURNING id

-- name: insert_incident_effects
INSERT INTO incident_effects (incident_id, effect_id, run_id, tenant, kinship, tool, state, arguments, intended_at,
    audit_seq)
SELECT item.incident_id, item.effect_id, item.run_id, item.tenant, item.kinship, item.tool, item.state, item.arguments,
    item.intended_at, (
        SELECT max(audit.seq) FROM audit WHERE audit.entity_id = item.effect_id AND audit.entity = 'effect'
            AND audit.action IN ('effect.succeeded', 'effect.failed', 'effect.unknown', 'effect.resolved'))
FROM @rows(incident_id text, effect_id text, run_id text, tenant text, kinship text, tool text, state text,
    arguments text, intended_at bigint) AS item

-- name: incident_by_id
SELECT * FROM incidents WHERE id = :id

-- name: open_incident_of_effect
SELECT id FROM incidents WHERE effect_id = :effect_id AND state = 'open'

-- name: effects_of_incident
-- As they were when it was opened, and what has become of each since; the nearest siblings first.
SELECT incident_effects.*, CASE WHEN effects.state = 'intended' AND NOT EXISTS (
        SELECT 1 FROM attempts WHERE attempts.run_id = effects.run_id AND attempts.number = effects.attempt
            AND attempts.state = 'running') THEN 'unknown' ELSE effects.state END AS state_now
FROM incident_effects LEFT JOIN effects ON effects.id = incident_effects.effect_id
WHERE incident_effects.incident_id = :incident_id
    AND (CAST(:tenant AS TEXT) IS NULL OR incident_effects.tenant = :tenant)
ORDER BY CASE WHEN incident_effects.kinship = 'original' THEN 0
        WHEN substr(incident_effects.kinship, 1, 9) = 'arguments' THEN 1
        WHEN substr(incident_effects.kinship, 1, 7) = 'lineage' THEN 2 ELSE 3 END,
    incident_effects.intended_at DESC, incident_effects.effect_id

-- name: corrections_of_incident
SELECT * FROM corrections
WHERE incident_id = :incident_id AND (CAST(:tenant AS TEXT) IS NULL OR tenant = :tenant)
ORDER BY corrected_at, id

-- name: list_incidents
-- Newest first.
SELECT incidents.*,
    (SELECT count(*) FROM incident_effects WHERE incident_effects.incident_id = incidents.id) - 1 AS siblings,
    (SELECT count(*) FROM corrections WHERE corrections.incident_id = incidents.id) AS corrections
FROM incidents
WHERE (CAST(:after AS TEXT) IS NULL OR incidents.id < :after)
    AND (CAST(:state AS TEXT) IS NULL OR incidents.state = :state)
    AND (CAST(:severity AS TEXT) IS NULL OR incidents.severity = :severity)
    AND (CAST(:agent AS TEXT) IS NULL OR incidents.agent = :agent)
    AND (CAST(:tenant AS TEXT) IS NULL OR incidents.tenant = :tenant)
ORDER BY incidents.id DESC LIMIT :limit

-- name: close_incident
UPDATE incidents SET state = 'closed', closed_at = :now, closed_by = :closed_by, note = :note
WHERE id = :id AND state = 'open' RETURNING id

-- name: insert_correction
INSERT INTO corrections (id, incident_id, tenant, effect_id, audit_seq, note, by_run, corrected_by, corrected_at)
SELECT :id, incident_effects.incident_id, incident_effects.tenant, incident_effects.effect_id, incident_effects.audit_seq, :note,
    CAST(:by_run AS TEXT), :corrected_by, :now
FROM incident_effects WHERE incident_effects.incident_id = :incident_id AND incident_effects.effect_id = :effect_id
RETURNING audit_seq

-- name: insert_case
INSERT INTO cases (id, incident_id, tenant, agent, content, created_at, created_by)
VALUES (:id, :incident_id, :tenant, :agent, :content, :now, :created_by)

-- name: case_of_incident
SELECT * FROM cases WHERE incident_id = :incident_id

-- name: critical_open
-- Of one agent: those that are open still, and those that were opened since an instant.
SELECT count(*) AS found FROM incidents
WHERE agent = :agent AND severity = 'critical' AND (state = 'open' OR opened_at >= CAST(:since AS BIGINT))
