-- How many runs of each tenant are queued, kept like the other counters.

INSERT INTO counters (name, agent, lane, label, shard, value)
SELECT 'queued', '', '', tenant, 0, count(*) FROM runs WHERE state = 'queued' GROUP BY tenant;
