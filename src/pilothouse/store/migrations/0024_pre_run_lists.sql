-- Lists of runs: what an operator filters by, without walking over all runs.

CREATE INDEX runs_of_agent ON runs (agent, id);

-- Most runs are of the default tenant; its list is that of all.
CREATE INDEX runs_of_tenant ON runs (tenant, id) WHERE tenant <> 'default';

-- Few runs are in these states, and a run that succeeds at once never is.
CREATE INDEX runs_seldom ON runs (state, id) WHERE state IN ('failed', 'cancelled', 'waiting');
