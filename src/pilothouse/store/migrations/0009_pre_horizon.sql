-- only: postgres
-- What is final is told by the locks of those who write; the transaction's number could not tell it.
ALTER TABLE audit DROP COLUMN written_by;
-- end
