-- Seals of the audit: a Merkle root per batch of records, each seal chained to the one before.

CREATE TABLE audit_seals (
    number BIGINT PRIMARY KEY,
    first_seq BIGINT NOT NULL,
    last_seq BIGINT NOT NULL,
    records INTEGER NOT NULL,
    root {id} NOT NULL,
    leaves TEXT NOT NULL,
    previous {id} NOT NULL,
    hash {id} NOT NULL,
    sealed_at BIGINT NOT NULL
);
