-- name: hold_key
SELECT api_keys.*, :now AS now FROM api_keys WHERE id = :id FOR SHARE
