-- Where a run's end is told, if anywhere.
ALTER TABLE runs ADD COLUMN webhook_url TEXT;
