-- The trace that a run belongs to, where its submitter said so (W3C Trace Context); children have their parent's.

ALTER TABLE runs ADD COLUMN traceparent {id};
