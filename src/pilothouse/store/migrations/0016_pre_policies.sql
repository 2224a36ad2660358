-- What an approval is decided by: which reviewer, under which policies, and against which schema edits are held.

ALTER TABLE approvals ADD COLUMN kind {id} NOT NULL DEFAULT 'approval' CHECK (kind IN ('approval', 'tool'));

ALTER TABLE approvals ADD COLUMN reviewer {id} NOT NULL DEFAULT 'operator' CHECK (reviewer IN ('operator', 'admin'));

ALTER TABLE approvals ADD COLUMN policy_version {id};

ALTER TABLE approvals ADD COLUMN arguments_schema TEXT;

-- When its deadline was seen to have passed.
ALTER TABLE approvals ADD COLUMN passed_at BIGINT;

-- A vote is for exact arguments.
ALTER TABLE approval_votes ADD COLUMN arguments_hash {id};

DROP INDEX approvals_due;

CREATE INDEX approvals_due ON approvals (deadline_at)
WHERE state = 'pending' AND deadline_at IS NOT NULL AND passed_at IS NULL;

CREATE INDEX approvals_of_run ON approvals (run_id) WHERE state = 'pending';

-- Whether an agent has ever called a tool.
CREATE INDEX tool_calls_by_tool ON tool_calls (tool, outcome, run_id);
