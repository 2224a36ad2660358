-- name: lock_note
SELECT id FROM notes WHERE id = :id FOR UPDATE

-- name: echo
SELECT CAST(:text AS TEXT) AS text, CAST(:number AS BIGINT) AS number, CAST(:amount AS DOUBLE PRECISION) AS amount

-- name: prepared
SELECT count(*) AS count FROM pg_prepared_statements
