-- name: intend_effects
-- The same call of a later attempt is the same effect.
INSERT INTO effects (id, run_id, key, attempt, tenant, agent, tool, platform, effect, arguments_hash, state, tries,
    intended_at, arguments, fingerprint, number)
SELECT item.id, item.run_id, item.key, item.attempt, item.tenant, item.agent, item.tool, item.platform, item.effect,
    item.arguments_hash, 'intended', 1, :now, item.arguments, item.fingerprint, item.number
FROM @rows(id text, run_id text, key text, attempt integer, tenant text, agent text, tool text, platform text,
    effect text, arguments_hash text, arguments text, fingerprint text, number integer) AS item WHERE true
ON CONFLICT (id) DO UPDATE SET attempt = excluded.attempt, state = 'intended', tries = effects.tries + 1,
    intended_at = excluded.intended_at, finished_at = NULL, fingerprint = excluded.fingerprint,
    number = excluded.number, resolved_by = NULL, note = NULL

-- name: finish_effects
-- What the tool itself says beats what anybody else has said.
UPDATE effects SET state = item.state, finished_at = :now, resolved_by = item.resolved_by
FROM @rows(id text, run_id text, state text, resolved_by text) AS item
WHERE effects.id = item.id AND effects.run_id = item.run_id
    AND (effects.state IN ('intended', 'unknown') OR item.resolved_by IS NULL)

-- name: open_effects
-- Those that nobody knows the outcome of, newest first; `at` and `id` say where the page before ended.
SELECT effects.id, effects.run_id, effects.key, effects.attempt, effects.tenant, effects.agent, effects.tool,
    effects.platform, effects.effect, effects.arguments, effects.tries, effects.intended_at, effects.finished_at,
    effects.resolved_by, effects.note, effects.corrects, effects.fingerprint, 'unknown' AS state, :now AS now
FROM effects
WHERE effects.state IN ('intended', 'unknown')
    AND (effects.state = 'unknown' OR NOT EXISTS (
        SELECT 1 FROM attempts WHERE attempts.run_id = effects.run_id AND attempts.number = effects.attempt
            AND attempts.state = 'running'))
    AND (CAST(:run_id AS TEXT) IS NULL OR effects.run_id = :run_id)
    AND (CAST(:agent AS TEXT) IS NULL OR effects.agent = :agent)
    AND (CAST(:tool AS TEXT) IS NULL OR effects.tool = :tool)
    AND (CAST(:tenant AS TEXT) IS NULL OR effects.tenant = :tenant)
    AND (CAST(:since AS BIGINT) IS NULL OR effects.intended_at >= :since)
    AND (CAST(:at AS BIGINT) IS NULL OR (effects.intended_at, effects.id) < (CAST(:at AS BIGINT), CAST(:id AS TEXT)))
ORDER BY effects.intended_at DESC, effects.id DESC LIMIT :limit

-- name: other_effects
-- Those that have an outcome, or are under way.
SELECT effects.id, effects.run_id, effects.key, effects.attempt, effects.tenant, effects.agent, effects.tool,
    effects.platform, effects.effect, effects.arguments, effects.tries, effects.intended_at, effects.finished_at,
    effects.resolved_by, effects.note, effects.corrects, effects.fingerprint, effects.state, :now AS now
FROM effects
WHERE (effects.state IN ('succeeded', 'failed') OR (effects.state = 'intended' AND EXISTS (
        SELECT 1 FROM attempts WHERE attempts.run_id = effects.run_id AND attempts.number = effects.attempt
            AND attempts.state = 'running')))
    AND (CAST(:tenant AS TEXT) IS NULL OR effects.tenant = :tenant)
    AND (CAST(:state AS TEXT) IS NULL OR effects.state = :state)
    AND (CAST(:since AS BIGINT) IS NULL OR effects.intended_at >= :since)
    AND (CAST(:at AS BIGINT) IS NULL OR (effects.intended_at, effects.id) < (CAST(:at AS BIGINT), CAST(:id AS TEXT)))
ORDER BY effects.intended_at DESC, effects.id DESC LIMIT :limit

-- name: other_effects_of_run
-- The same by the index of a run; an agent, a tool.
SELECT effects.id, effects.run_id, effects.key, effects.attempt, effects.tenant, effects.agent, effects.tool,
    effects.platform, effects.effect, effects.arguments, effects.tries, effects.intended_at, effects.finished_at,
    effects.resolved_by, effects.note, effects.corrects, effects.fingerprint, effects.state, :now AS now
FROM effects
WHERE effects.run_id = :run_id
    AND (effects.state IN ('succeeded', 'failed') OR (effects.state = 'intended' AND EXISTS (
        SELECT 1 FROM attempts WHERE attempts.run_id = effects.run_id AND attempts.number = effects.attempt
            AND attempts.state = 'running')))
    AND (CAST(:agent AS TEXT) IS NULL OR effects.agent = :agent)
    AND (CAST(:tool AS TEXT) IS NULL OR effects.tool = :tool)
    AND (CAST(:tenant AS TEXT) IS NULL OR effects.tenant = :tenant)
    AND (CAST(:state AS TEXT) IS NULL OR effects.state = :state)
    AND (CAST(:since AS BIGINT) IS NULL OR effects.intended_at >= :since)
    AND (CAST(:at AS BIGINT) IS NULL OR (effects.intended_at, effects.id) < (CAST(:at AS BIGINT), CAST(:id AS TEXT)))
ORDER BY effects.intended_at DESC, effects.id DESC LIMIT :limit

-- name: other_effects_of_agent
SELECT effects.id, effects.run_id, effects.key, effects.attempt, effects.tenant, effects.agent, effects.tool,
    effects.platform, effects.effect, effects.arguments, effects.tries, effects.intended_at, effects.finished_at,
    effects.resolved_by, effects.note, effects.corrects, effects.fingerprint, effects.state, :now AS now
FROM effects
WHERE effects.agent = :agent
    AND (effects.state IN ('succeeded', 'failed') OR (effects.state = 'intended' AND EXISTS (
        SELECT 1 FROM attempts WHERE attempts.run_id = effects.run_id AND attempts.number = effects.attempt
            AND attempts.state = 'running')))
    AND (CAST(:tool AS TEXT) IS NULL OR effects.tool = :tool)
    AND (CAST(:tenant AS TEXT) IS NULL OR effects.tenant = :tenant)
    AND (CAST(:state AS TEXT) IS NULL OR effects.state = :state)
    AND (CAST(:since AS BIGINT) IS NULL OR effects.intended_at >= :since)
    AND (CAST(:at AS BIGINT) IS NULL OR (effects.intended_at, effects.id) < (CAST(:at AS BIGINT), CAST(:id AS TEXT)))
ORDER BY effects.intended_at DESC, effects.id DESC LIMIT :limit

-- name: other_effects_of_tool
SELECT effects.id, effects.run_id, effects.key, effects.attempt, effects.tenant, effects.agent, effects.tool,
    effects.platform, effects.effect, effects.arguments, effects.tries, effects.intended_at, effects.finished_at,
    effects.resolved_by, effects.note, effects.corrects, effects.fingerprint, effects.state, :now AS now
FROM effects
WHERE effects.tool = :tool
    AND (effects.state IN ('succeeded', 'failed') OR (effects.state = 'intended' AND EXISTS (
        SELECT 1 FROM attempts WHERE attempts.run_id = effects.run_id AND attempts.number = effects.attempt
            AND attempts.state = 'running')))
    AND (CAST(:tenant AS TEXT) IS NULL OR effects.tenant = :tenant)
    AND (CAST(:state AS TEXT) IS NULL OR effects.state = :state)
    AND (CAST(:since AS BIGINT) IS NULL OR effects.intended_at >= :since)
    AND (CAST(:at AS BIGINT) IS NULL OR (effects.intended_at, effects.id) < (CAST(:at AS BIGINT), CAST(:id AS TEXT)))
ORDER BY effects.intended_at DESC, effects.id DESC LIMIT :limit

-- name: failed_effects
-- Those that failed, of all agents and tools.
SELECT effects.id, effects.run_id, effects.key, effects.attempt, effects.tenant, effects.agent, effects.tool,
    effects.platform, effects.effect, effects.arguments, effects.tries, effects.intended_at, effects.finished_at,
    effects.resolved_by, effects.note, effects.corrects, effects.fingerprint, effects.state, :now AS now
FROM effects
WHERE effects.state = 'failed'
    AND (CAST(:tenant AS TEXT) IS NULL OR effects.tenant = :tenant)
    AND (CAST(:since AS BIGINT) IS NULL OR effects.intended_at >= :since)
    AND (CAST(:at AS BIGINT) IS NULL OR (effects.intended_at, effects.id) < (CAST(:at AS BIGINT), CAST(:id AS TEXT)))
ORDER BY effects.intended_at DESC, effects.id DESC LIMIT :limit

-- name: effect_by_id
SELECT effects.*, :now AS now,
    EXISTS (SELECT 1 FROM attempts WHERE attempts.run_id = effects.run_id AND attempts.number = effects.attempt
        AND attempts.state = 'running') AS is_under_way
FROM effects WHERE effects.id = :id

-- name: effects_of_run
SELECT effects.*,
    EXISTS (SELECT 1 FROM attempts WHERE attempts.run_id = effects.run_id AND attempts.number = effects.attempt
        AND attempts.state = 'running') AS is_under_way
FROM effects WHERE effects.run_id = :run_id ORDER BY effects.intended_at, effects.id

-- name: resolve_effect
UPDATE effects SET state = :state, resolved_by = :resolved_by, note = :note, finished_at = :now
WHERE id = :id AND state IN ('intended', 'unknown') AND number = :number
RETURNING id

-- name: calls_of_effect
SELECT * FROM tool_calls WHERE run_id = :run_id AND effect_id = :effect_id ORDER BY started_at, key, attempt

-- name: insert_correction_effect
-- What a person did about an effect by hand is an effect too.
INSERT INTO effects (id, run_id, key, attempt, tenant, agent, tool, platform, effect, arguments_hash, state, tries,
    intended_at, finished_at, resolved_by, note, arguments, fingerprint, number, corrects)
SELECT :id, effects.run_id, effects.key || '.correction', effects.attempt, effects.tenant, effects.agent, effects.tool,
    effects.platform, effects.effect, effects.arguments_hash, 'succeeded', 1, :now, :now, :principal, :note,
    effects.arguments, effects.fingerprint, 1, effects.id
FROM effects WHERE effects.id = :effect_id

-- name: delete_effects
DELETE FROM effects WHERE run_id IN (SELECT item.id FROM @rows(id text) AS item)
