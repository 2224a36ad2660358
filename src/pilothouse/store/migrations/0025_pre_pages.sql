-- What the dashboard's lists of effects and of approvals that wait are read by.

CREATE INDEX effects_by_agent ON effects (agent, intended_at, id);
CREATE INDEX effects_failed ON effects (intended_at, id) WHERE state = 'failed';
CREATE INDEX approvals_waiting ON approvals ((coalesce(deadline_at, 999999999999999999)), id) WHERE state = 'pending';
