-- Sealed records may leave the audit, a whole seal at a time; the seal stays, and the latest instant of them.

ALTER TABLE audit_seals ADD COLUMN pruned_through BIGINT;
CREATE INDEX audit_seals_kept ON audit_seals (number) WHERE pruned_through IS NULL;
