-- name: lock_erasure
SELECT * FROM erasures WHERE id = :id FOR UPDATE

-- name: lock_blobs
-- Who uses one anew writes its row: whoever wants to erase it waits for that, and then sees what refers to it.
SELECT blobs.hash FROM blobs
WHERE blobs.hash IN (SELECT item.hash FROM @rows(hash text) AS item)
ORDER BY blobs.hash
FOR UPDATE
