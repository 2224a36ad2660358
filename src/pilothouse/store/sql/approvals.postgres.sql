-- name: lock_approval
SELECT approvals.*, :now AS now FROM approvals WHERE id = :id FOR NO KEY UPDATE
