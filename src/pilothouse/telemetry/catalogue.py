"""Every metric of `/metrics`: its name, its labels, and what other guides call the same thing. One list, which is also
the reference page.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["counter", "gauge", "histogram"]


class Metric(NamedTuple):
    """`elsewhere` is the name under which people may know it. Names of counters end in `_total`."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    elsewhere: str = ""


RECENT_SECONDS = 300
"""What rates of errors and of throughput look back on."""

HOUR_SECONDS = 3600
"""What shares and costs per run look back on."""

CATALOGUE = (
    Metric("agent_tasks_total", "counter", "Runs that have ended, by how.", ("agent_name", "status")),
    Metric(
        "agent_task_duration_seconds",
        "histogram",
        "From a run's first claim to its end; cancelled runs are left out.",
        ("agent_name",),
    ),
    Metric("agent_queue_size", "gauge", "Runs that are queued.", ("agent_name",)),
    Metric(
        "routing_decisions_total",
        "counter",
        "Questions to models by route: the first model answered (primary), a later one (fallback), that of a smaller "
        "route (degraded), a kept answer did (cached), or none (failed).",
        ("strategy", "outcome"),
    ),
    Metric(
        "circuit_breaker_state",
        "gauge",
        "0 closed, 1 open, 2 half open, by dependency; with an agent_id, the same for an agent that has used it.",
        ("dependency", "agent_id"),
    ),
    Metric(
        "workflow_duration_seconds",
        "histogram",
        "As agent_task_duration_seconds, of agents that are workflows.",
        ("workflow",),
        "workflow_duration",
    ),
    Metric(
        "llm_cost_usd", "gauge", "What models have cost, in dollars, since counting began.", ("agent_name", "model")
    ),
    Metric("error_rate", "gauge", "Share of runs that failed, of those that ended in the last 5 min.", ("agent_name",)),
    Metric("db_pool_size", "gauge", "Database connections that this process may use at once."),
    Metric("db_pool_in_use", "gauge", "Database connections of this process that are at work."),
    Metric("db_pool_waiting", "gauge", "Calls of this process that wait for a database connection."),
    Metric(
        "pilothouse_queue_depth",
        "gauge",
        "Runs that have not ended, by state.",
        ("agent", "lane", "state"),
        "queueDepth",
    ),
    Metric(
        "pilothouse_queue_oldest_age_seconds",
        "gauge",
        "How long the head of the queue has been due.",
        ("agent", "lane"),
        "oldest age",
    ),
    Metric("pilothouse_attempts_total", "counter", "Attempts that have ended.", ("agent", "lane", "outcome")),
    Metric("pilothouse_failures_total", "counter", "Runs that have failed, by why.", ("agent", "category"), "errors"),
    Metric(
        "pilothouse_runs_ended_per_minute",
        "gauge",
        "Runs that ended in the last 5 min, per minute.",
        ("agent",),
        "taskThroughput, jobs/min",
    ),
    Metric(
        "pilothouse_completion_ratio",
        "gauge",
        "Share of runs that succeeded, of those that ended in the last hour and were not cancelled.",
        ("agent",),
        "taskCompletionRate",
    ),
    Metric(
        "pilothouse_escalation_ratio",
        "gauge",
        "Share of runs that had asked people, of those that ended in the last hour.",
        ("agent",),
        "escalationRate",
    ),
    Metric(
        "pilothouse_runs_asked_total", "counter", "Runs that have ended and had asked people for something.", ("agent",)
    ),
    Metric(
        "pilothouse_cost_usd_per_run",
        "gauge",
        "What was spent in the last hour, by each run that ended in it.",
        ("agent",),
        "tokenCostPerTask",
    ),
    Metric("pilothouse_cost_usd_total", "counter", "What was spent on models and tools.", ("agent", "kind", "name")),
    Metric("pilothouse_tokens_total", "counter", "Tokens, input or output.", ("agent", "direction"), "tokens"),
    Metric(
        "pilothouse_model_calls_total",
        "counter",
        "Calls of models; skipped ones were not asked.",
        ("agent", "model", "outcome"),
    ),
    Metric(
        "pilothouse_model_seconds_total", "counter", "How long answers of models took.", ("agent", "model"), "LLM time"
    ),
    Metric(
        "pilothouse_tool_calls_total",
        "counter",
        "Calls of tools.",
        ("agent", "tool", "outcome"),
        "toolCallDistribution",
    ),
    Metric("pilothouse_tool_seconds_total", "counter", "How long calls of tools took.", ("agent", "tool")),
    Metric(
        "pilothouse_agent_info",
        "gauge",
        "1; the version of an agent that was registered last.",
        ("agent", "app", "version", "state_version"),
        "versionId",
    ),
    Metric(
        "pilothouse_agent_version_age_seconds",
        "gauge",
        "How long ago the agent last changed.",
        ("agent",),
        "versionAge",
    ),
    Metric("pilothouse_workers", "gauge", "Workers that hold a lease, by state.", ("state",)),
    Metric("pilothouse_worker_slots", "gauge", "Slots of workers that take runs."),
    Metric(
        "pilothouse_worker_utilization_ratio",
        "gauge",
        "Runs that run, of the slots of workers that take runs.",
        (),
        "workerUtilization",
    ),
    Metric(
        "pilothouse_worker_renewal_age_seconds",
        "gauge",
        "How long ago the most silent worker renewed its lease.",
        (),
        "tick freshness",
    ),
    Metric(
        "pilothouse_chore_age_seconds",
        "gauge",
        "How long ago a chore of the scheduler took its turn.",
        ("chore",),
        "tick freshness",
    ),
    Metric("pilothouse_approvals_pending", "gauge", "Approvals that wait for a person; counted up to 10,000."),
    Metric(
        "pilothouse_approvals_next_deadline_seconds",
        "gauge",
        "How long until the next approval passes its deadline; absent while none has one.",
    ),
    Metric("pilothouse_effects_unknown", "gauge", "Effects of unknown outcome; counted up to 10,000."),
    Metric("pilothouse_dead_letters", "gauge", "Dead letters; counted up to 10,000."),
    Metric("pilothouse_switches_tripped", "gauge", "Kill switches that are tripped."),
    Metric("pilothouse_alerts_firing", "gauge", "Alerts that fire, silenced ones too.", ("rule",), "active alerts"),
    Metric("pilothouse_audit_seal_lag_seconds", "gauge", "How old the oldest record is that no seal covers."),
    Metric(
        "pilothouse_budget_used",
        "gauge",
        "What is settled of a budget of today or this month; money in dollars.",
        ("account", "period", "unit"),
    ),
    Metric("pilothouse_budget_reserved", "gauge", "What is reserved of it.", ("account", "period", "unit")),
    Metric("pilothouse_budget_limit", "gauge", "Its limit.", ("account", "period", "unit")),
    Metric(
        "pilothouse_build_info", "gauge", "1; the version of Pilothouse that answers.", ("version", "store"), "alive"
    ),
)
"""What the platform's own database says. The figures of the answering process, `process_*`, come after them."""
