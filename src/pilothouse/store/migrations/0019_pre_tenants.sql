-- Erasures of tenants: what was asked for, how far it has come, and what stays of the audit records that were erased.

-- The names in money rows are replaced by ones made with `pseudonym_key`, which is forgotten once all are.
CREATE TABLE erasures (
    id {id} PRIMARY KEY,
    tenant {id} NOT NULL,
    state {id} NOT NULL CHECK (state IN ('under_way', 'done')),
    requested_by {id} NOT NULL,
    reason TEXT,
    pseudonym_key {id},
    runs BIGINT NOT NULL DEFAULT 0,
    records BIGINT NOT NULL DEFAULT 0,
    started_at BIGINT NOT NULL,
    finished_at BIGINT
);
CREATE UNIQUE INDEX erasures_under_way ON erasures (tenant) WHERE state = 'under_way';

-- JSON: the number of each record, the hash of what it said, and of what it says now. An audit record vouches for each.
CREATE TABLE erased_records (
    id {id} PRIMARY KEY,
    erasure_id {id} NOT NULL,
    first_seq BIGINT NOT NULL,
    last_seq BIGINT NOT NULL,
    tombstones TEXT NOT NULL
);
CREATE INDEX erased_records_span ON erased_records (last_seq);
