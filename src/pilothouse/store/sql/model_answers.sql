-- name: model_answer
SELECT answer FROM model_answers WHERE tenant = :tenant AND question = :question AND expires_at > :now

-- name: keep_model_answer
INSERT INTO model_answers (tenant, question, answer, created_at, expires_at)
VALUES (:tenant, :question, :answer, :now, :now + CAST(:lasts_us AS BIGINT))
ON CONFLICT (tenant, question) DO UPDATE
SET answer = excluded.answer, created_at = excluded.created_at, expires_at = excluded.expires_at

-- name: delete_stale_answers
DELETE FROM model_answers WHERE expires_at <= :now
