-- Large payloads, kept once under their hash; a row that holds one has `blob:` and the hash in its place.

CREATE TABLE blobs (
    hash {id} PRIMARY KEY,
    payload TEXT NOT NULL,
    used_at BIGINT NOT NULL
);

CREATE TABLE blob_references (
    run_id {id} NOT NULL,
    hash {id} NOT NULL,
    PRIMARY KEY (run_id, hash)
) {without_rowid};

CREATE INDEX blob_references_hash ON blob_references (hash);
