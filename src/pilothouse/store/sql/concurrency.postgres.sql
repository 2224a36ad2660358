-- name: lock_agents
SELECT name FROM agents WHERE name IN (SELECT item.name FROM @rows(name text) AS item) ORDER BY name FOR NO KEY UPDATE
