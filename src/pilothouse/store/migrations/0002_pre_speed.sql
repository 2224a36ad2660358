-- Cheaper upkeep of the hot rows: no index that another one can answer for, and a guard that costs a third.

-- What is running is found in attempts_running, which is kept anyway.
DROP INDEX runs_running;

-- only: sqlite
DROP TRIGGER runs_transition;

CREATE TRIGGER runs_transition BEFORE UPDATE OF state ON runs FOR EACH ROW WHEN NOT CASE OLD.state
    WHEN 'queued' THEN NEW.state IN ('running', 'cancelled')
    WHEN 'waiting' THEN NEW.state IN ('running', 'cancelled')
    WHEN 'running' THEN NEW.state IN ('succeeded', 'waiting', 'queued', 'failed', 'cancelled')
    WHEN 'failed' THEN NEW.state = 'queued'
    ELSE 0
END BEGIN
    SELECT RAISE(ABORT, 'a run cannot go from its state to the new one');
END;
-- end
