-- name: latest_outcomes
SELECT confidence,
    CASE WHEN decision = 'approve' AND (decided_hash IS NULL OR decided_hash = arguments_hash) THEN 1 ELSE 0 END AS is_right
FROM approvals
WHERE agent = :agent AND decided_at >= :since AND confidence IS NOT NULL
    AND decision IN ('approve', 'edit', 'reject', 'revise')
ORDER BY decided_at DESC, id DESC LIMIT :limit

-- name: calibration_row
SELECT agent, error, is_off FROM calibrations WHERE agent = :agent

-- name: set_calibration
-- An alert is told anew whenever the error has passed its limit again.
INSERT INTO calibrations (agent, error, is_off, changed_at) VALUES (:agent, :error, :is_off, :now)
ON CONFLICT (agent) DO UPDATE SET error = excluded.error, is_off = excluded.is_off,
    changed_at = CASE WHEN calibrations.is_off = excluded.is_off THEN calibrations.changed_at ELSE :now END,
    told_at = CASE WHEN calibrations.is_off = excluded.is_off THEN calibrations.told_at END

-- name: tell_calibrations
UPDATE calibrations SET told_at = :now WHERE is_off = 1 AND told_at IS NULL RETURNING agent, error

-- name: untold_calibrations
SELECT 1 AS found FROM calibrations WHERE is_off = 1 AND told_at IS NULL LIMIT 1
