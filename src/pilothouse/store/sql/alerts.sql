-- name: live_alerts
-- The episodes under way.
SELECT alerts.*, :now AS now
FROM alerts WHERE alerts.state IN ('pending', 'firing') ORDER BY alerts.rule, alerts.subject

-- name: alert_flaps
-- How often each rule and subject has fired since an instant and is over again.
SELECT rule, subject, count(*) AS flaps
FROM (SELECT rule, subject FROM alerts WHERE state = 'resolved' AND resolved_at >= CAST(:since AS BIGINT)
    ORDER BY resolved_at DESC LIMIT :most) AS latest
GROUP BY rule, subject

-- name: insert_alerts
INSERT INTO alerts (id, rule, subject, agent, tenant, state, severity, value, threshold, unit, text, runbook, flaps,
    since, met_at, fired_at)
SELECT item.id, item.rule, item.subject, item.agent, item.tenant, item.state, item.severity, item.value, item.threshold,
    item.unit, item.text, item.runbook, item.flaps, item.since, item.met_at, item.fired_at
FROM @rows(id text, rule text, subject text, agent text, tenant text, state text, severity text, value double precision,
    threshold double precision, unit text, text text, runbook text, flaps integer, since bigint, met_at bigint,
    fired_at bigint) AS item
WHERE true
ON CONFLICT DO NOTHING RETURNING id

-- name: update_alerts
-- Its state may have been changed by nobody else meanwhile.
UPDATE alerts
SET state = item.state, severity = item.severity, value = item.value, threshold = item.threshold, text = item.text,
    flaps = item.flaps, since = item.since, met_at = item.met_at, fired_at = item.fired_at, resolved_at = item.resolved_at
FROM @rows(id text, before text, state text, severity text, value double precision, threshold double precision,
    text text, flaps integer, since bigint, met_at bigint, fired_at bigint, resolved_at bigint) AS item
WHERE alerts.id = item.id AND alerts.state = item.before
RETURNING alerts.id

-- name: drop_alerts
-- Pending ones whose condition has gone.
DELETE FROM alerts WHERE id IN (SELECT item.id FROM @rows(id text) AS item) AND state = 'pending'

-- name: tell_alerts
UPDATE alerts SET told_at = :now FROM @rows(id text) AS item WHERE alerts.id = item.id AND alerts.told_at IS NULL

-- name: alert_by_id
SELECT alerts.*, :now AS now FROM alerts WHERE id = :id

-- name: list_alerts
-- Newest first.
SELECT alerts.*, :now AS now FROM alerts
WHERE (CAST(:after AS TEXT) IS NULL OR id < :after)
    AND (CAST(:state AS TEXT) IS NULL OR state = :state)
    AND (CAST(:severity AS TEXT) IS NULL OR severity = :severity)
    AND (CAST(:rule AS TEXT) IS NULL OR rule = :rule)
    AND (CAST(:agent AS TEXT) IS NULL OR agent = :agent)
ORDER BY id DESC LIMIT :limit

-- name: firing_alerts
-- The gravest first, then the latest.
SELECT alerts.*, :now AS now FROM alerts
WHERE state IN ('pending', 'firing') AND state = 'firing'
ORDER BY CASE severity WHEN 'critical' THEN 0 WHEN 'warning' THEN 1 ELSE 2 END, fired_at DESC, id
LIMIT :limit

-- name: untold_alerts
-- Of whose start nobody was told; the gravest first.
SELECT * FROM alerts
WHERE state IN ('pending', 'firing') AND state = 'firing' AND told_at IS NULL AND acknowledged_at IS NULL
ORDER BY CASE severity WHEN 'critical' THEN 0 WHEN 'warning' THEN 1 ELSE 2 END, fired_at, id
LIMIT :limit

-- name: firing_counts
SELECT rule, severity, count(*) AS alerts FROM alerts
WHERE state IN ('pending', 'firing') AND state = 'firing' GROUP BY rule, severity

-- name: acknowledge_alert
UPDATE alerts SET acknowledged_at = :now, acknowledged_by = :acknowledged_by
WHERE id = :id AND state IN ('pending', 'firing') AND acknowledged_at IS NULL
RETURNING id

-- name: prune_alerts
DELETE FROM alerts WHERE id IN (
    SELECT old.id FROM alerts AS old WHERE old.state = 'resolved' AND old.resolved_at < CAST(:before AS BIGINT)
    ORDER BY old.resolved_at LIMIT :limit)

-- name: insert_silence
INSERT INTO silences (id, rule, subject, agent, reason, until_at, created_at, created_by)
VALUES (:id, :rule, :subject, :agent, :reason, :now + CAST(:length_us AS BIGINT), :now, :created_by)

-- name: silence_by_id
SELECT silences.*, :now AS now FROM silences WHERE id = :id

-- name: live_silences
-- Those that end first come first.
SELECT silences.*, :now AS now FROM silences
WHERE ended_at IS NULL AND until_at > :now ORDER BY until_at, id LIMIT :limit

-- name: end_silence
UPDATE silences SET ended_at = :now, ended_by = :ended_by
WHERE id = :id AND ended_at IS NULL AND until_at > :now RETURNING id

-- name: prune_silences
DELETE FROM silences WHERE until_at < CAST(:before AS BIGINT)

-- name: hold_notices
INSERT INTO alert_notices (alert_id, event, recipient, queued_at)
SELECT item.alert_id, item.event, item.recipient, :now
FROM @rows(alert_id text, event text, recipient text) AS item WHERE true
ON CONFLICT DO NOTHING

-- name: held_notices
SELECT alert_id, event, queued_at FROM alert_notices
WHERE recipient = :recipient AND message IS NULL
ORDER BY queued_at, alert_id, event LIMIT :limit

-- name: sent_messages
-- How many messages a recipient was sent since an instant; tests do not count.
SELECT count(DISTINCT message) AS messages FROM alert_notices
WHERE recipient = :recipient AND message IS NOT NULL AND sent_at > CAST(:since AS BIGINT) AND event <> 'test'

-- name: send_notices
UPDATE alert_notices SET message = item.message, sent_at = :now
FROM @rows(alert_id text, event text, recipient text, message text) AS item
WHERE alert_notices.alert_id = item.alert_id AND alert_notices.event = item.event
    AND alert_notices.recipient = item.recipient AND alert_notices.message IS NULL

-- name: any_held_notice
SELECT 1 AS found FROM alert_notices WHERE message IS NULL LIMIT 1

-- name: notices_of_message
SELECT alert_notices.event AS notice, alerts.*, :now AS now
FROM alert_notices LEFT JOIN alerts ON alerts.id = alert_notices.alert_id
WHERE alert_notices.message = :message
ORDER BY alert_notices.queued_at, alert_notices.alert_id, alert_notices.event

-- name: notices_of_alert
SELECT event, recipient, queued_at, sent_at FROM alert_notices WHERE alert_id = :alert_id ORDER BY queued_at, recipient

-- name: prune_notices
DELETE FROM alert_notices WHERE queued_at < CAST(:before AS BIGINT)

-- name: list_baselines
-- Without what is long.
SELECT agent, measure, counted, evidence, changed_at FROM baselines ORDER BY agent, measure

-- name: baseline_of
SELECT * FROM baselines WHERE agent = :agent AND measure = :measure

-- name: put_baselines
INSERT INTO baselines (agent, measure, counted, scores, mix, learned, evidence, changed_at)
SELECT item.agent, item.measure, item.counted, item.scores, item.mix, item.learned, item.evidence, :now
FROM @rows(agent text, measure text, counted text, scores text, mix text, learned integer,
    evidence double precision) AS item
WHERE true
ON CONFLICT (agent, measure) DO UPDATE SET counted = excluded.counted, scores = excluded.scores, mix = excluded.mix,
    learned = excluded.learned, evidence = excluded.evidence, changed_at = excluded.changed_at

-- name: forget_baseline
DELETE FROM baselines WHERE agent = :agent AND measure = :measure

-- name: lost_workers
SELECT id, host, pid, lease_until, stopped_at, :now AS now FROM workers
WHERE state = 'lost' AND stopped_at >= CAST(:since AS BIGINT) ORDER BY stopped_at DESC LIMIT :limit

-- name: late_workers
-- Their lease has run out, and nobody has reaped them yet.
SELECT id, host, pid, lease_until, stopped_at, :now AS now FROM workers
WHERE state IN ('running', 'draining') AND lease_until < CAST(:until AS BIGINT) ORDER BY lease_until LIMIT :limit

-- name: live_slots
SELECT slots FROM workers WHERE state IN ('running', 'draining') AND lease_until >= :now AND is_enabled = 1

-- name: pending_by_agent
SELECT agent, count(*) AS approvals, min(requested_at) AS oldest, :now AS now,
    min(CASE WHEN passed_at IS NULL THEN deadline_at END) AS next_deadline
FROM (SELECT agent, requested_at, deadline_at, passed_at FROM approvals WHERE state = 'pending'
    ORDER BY id LIMIT :most) AS pending
GROUP BY agent ORDER BY agent

-- name: unknown_by_tool
SELECT tool, count(*) AS effects, min(intended_at) AS oldest, min(id) AS id
FROM (SELECT effects.tool, effects.intended_at, effects.id FROM effects
    WHERE effects.state IN ('intended', 'unknown')
        AND (effects.state = 'unknown' OR NOT EXISTS (
            SELECT 1 FROM attempts WHERE attempts.run_id = effects.run_id AND attempts.number = effects.attempt
                AND attempts.state = 'running'))
    ORDER BY effects.id LIMIT :most) AS open_effects
GROUP BY tool ORDER BY tool

-- name: runaways_by_agent
SELECT runs.agent, count(*) AS halted, min(runs.id) AS run_id
FROM checkpoints JOIN waits ON waits.run_id = checkpoints.run_id AND waits.kind = 'signal'
    AND waits.name || '.halted' = checkpoints.key
JOIN runs ON runs.id = checkpoints.run_id
WHERE checkpoints.kind = 'runaway' AND runs.state = 'waiting'
GROUP BY runs.agent ORDER BY runs.agent

-- name: uncalibrated
SELECT agent, error, changed_at FROM calibrations WHERE is_off = 1 ORDER BY agent

-- name: incidents_by_agent
SELECT agent, count(*) AS incidents, min(id) AS id FROM incidents
WHERE state = 'open' AND severity = 'critical' GROUP BY agent ORDER BY agent

-- name: late_overruns
-- Of the latest entries of the ledger, those that booked more than was reserved for them.
SELECT recent.agent, count(*) AS calls, max(recent.run_id) AS run_id,
    CAST(sum(recent.settled_microusd + recent.reserved_microusd) AS BIGINT) AS beyond_microusd
FROM (SELECT * FROM ledger ORDER BY seq DESC LIMIT :limit) AS recent
WHERE recent.kind = 'settle' AND recent.at >= CAST(:since AS BIGINT)
    AND (recent.settled_microusd > -recent.reserved_microusd OR recent.settled_tokens > -recent.reserved_tokens)
GROUP BY recent.agent ORDER BY recent.agent

-- name: oldest_unsealed
SELECT at, :now AS now FROM audit
WHERE seq > coalesce((SELECT max(last_seq) FROM audit_seals), 0) ORDER BY seq LIMIT 1
