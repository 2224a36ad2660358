-- name: latest_samples
-- Every series with its latest value.
SELECT name, agent, label,
    (SELECT value FROM history WHERE series = history_series.id AND at <= :now ORDER BY at DESC LIMIT 1) AS value
FROM history_series

-- name: add_series
INSERT INTO history_series (name, agent, label)
SELECT item.name, item.agent, item.label FROM @rows(name text, agent text, label text) AS item
WHERE true
ON CONFLICT (name, agent, label) DO NOTHING

-- name: add_samples
INSERT INTO history (series, at, value)
SELECT history_series.id, :now - item.age_us, item.value
FROM @rows(name text, agent text, label text, age_us bigint, value bigint) AS item
JOIN history_series ON history_series.name = item.name AND history_series.agent = item.agent
    AND history_series.label = item.label
WHERE true
ON CONFLICT (series, at) DO NOTHING

-- name: drop_future_samples
-- Of before the clock was set back. What had changed meanwhile is seen at the next turn.
DELETE FROM history WHERE is_fine = 1 AND at > :now + CAST(:slack_us AS BIGINT)

-- name: history_grid
-- How each series stood at every step of a stretch of time: one index probe per point, however many samples there are.
WITH RECURSIVE grid (at) AS (
    SELECT CAST(:since AS BIGINT)
    UNION ALL
    SELECT at + CAST(:step AS BIGINT) FROM grid WHERE at + CAST(:step AS BIGINT) <= CAST(:until AS BIGINT)
)
SELECT chosen.name, chosen.agent, chosen.label, grid.at,
    (SELECT value FROM history WHERE series = chosen.id AND history.at <= grid.at
     ORDER BY history.at DESC LIMIT 1) AS value
FROM history_series AS chosen
CROSS JOIN grid
WHERE chosen.name = :name AND (CAST(:agent AS TEXT) IS NULL OR chosen.agent = :agent)
ORDER BY chosen.agent, chosen.label, grid.at

-- name: history_spans
-- How each series stood when the stretch began, or first in it, and now.
SELECT name, agent, label,
    coalesce(
        (SELECT value FROM history WHERE series = history_series.id AND at <= :now - CAST(:length_us AS BIGINT)
         ORDER BY at DESC LIMIT 1),
        (SELECT value FROM history WHERE series = history_series.id AND at > :now - CAST(:length_us AS BIGINT)
         ORDER BY at LIMIT 1)) AS first,
    (SELECT value FROM history WHERE series = history_series.id AND at <= :now ORDER BY at DESC LIMIT 1) AS last
FROM history_series
WHERE name = :name AND (CAST(:agent AS TEXT) IS NULL OR agent = :agent)

-- name: thin_history
-- Of each stretch only the last sample stays. The instant at its end belongs to it, so that charts of whole stretches
-- do not change.
DELETE FROM history WHERE (series, at) IN (
    SELECT old.series, old.at FROM history AS old
    WHERE old.is_fine = 1 AND old.at <= CAST(:before AS BIGINT) AND EXISTS (
        SELECT 1 FROM history AS later
        WHERE later.series = old.series AND later.at > old.at
            AND later.at <= ((old.at - 1) / CAST(:stretch AS BIGINT) + 1) * CAST(:stretch AS BIGINT))
    LIMIT :limit)

-- name: keep_samples
UPDATE history SET is_fine = 0 WHERE is_fine = 1 AND at <= CAST(:before AS BIGINT)

-- name: prune_history
-- A series that has not changed since keeps its last sample.
DELETE FROM history WHERE (series, at) IN (
    SELECT old.series, old.at FROM history AS old
    WHERE old.is_fine = 0 AND old.at < CAST(:before AS BIGINT)
        AND EXISTS (SELECT 1 FROM history AS later WHERE later.series = old.series AND later.at > old.at)
    LIMIT :limit)
