-- name: insert_note
INSERT INTO notes (id, text, created_at) VALUES (:id, :text, :now)

-- name: insert_notes
INSERT INTO notes (id, text, created_at)
SELECT item.id, item.text, :now FROM @rows(id text, text text) AS item
WHERE true
ON CONFLICT DO NOTHING
RETURNING id

-- name: rename_notes
UPDATE notes SET text = item.text FROM @rows(id text, text text) AS item WHERE notes.id = item.id

-- name: rename_note
UPDATE notes SET text = :text WHERE id = :id

-- name: note_by_id
SELECT * FROM notes WHERE id = :id

-- name: list_notes
SELECT id, text FROM notes ORDER BY id

-- name: count_notes
SELECT count(*) AS count FROM notes

-- name: lock_note
SELECT id FROM notes WHERE id = :id

-- name: broken
SELECT absent FROM notes

-- name: now
SELECT :now AS now

-- name: echo
SELECT CAST(:text AS TEXT) AS text, CAST(:number AS BIGINT) AS number, CAST(:amount AS REAL) AS amount

-- name: echo_rows
SELECT item.text, item.number, item.amount
FROM @rows(text text, number bigint, amount double precision) AS item

-- name: kinds
SELECT sum(length(id)) AS sum, count(*) > 0 AS truth, avg(length(id)) AS mean, 'a' LIKE 'A' AS alike FROM notes
