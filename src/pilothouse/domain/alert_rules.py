"""The rules that Pilothouse alerts by, each with a threshold that suits most; pilothouse.toml changes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pilothouse.domain.alerts import AlertChange, AlertRule, Severity, changed

WARNING, CRITICAL, INFO = Severity.WARNING, Severity.CRITICAL, Severity.INFO

FALSE_ALARM_BLOCKS = 20_000.0
"""While an agent does not change, blocks that pass between two false alarms of drift, on average at the least: as many
times ten runs, and 69 days at the earliest.
"""

WINDOW_SECONDS = 900
"""How far back rates look."""

RULES: tuple[AlertRule, ...] = (
    AlertRule(
        "queue-age",
        WARNING,
        "How long the oldest due run of an agent has waited in a lane.",
        300.0,
        "seconds",
        "stuck-queue",
    ),
    AlertRule(
        "queue-depth",
        WARNING,
        "Queued runs of an agent in a lane, while one of them is due; the text says how many workers to add.",
        100.0,
        "runs",
        "stuck-queue",
    ),
    AlertRule(
        "slots-used",
        WARNING,
        "How much of all live workers' slots is taken.",
        0.8,
        "share",
        "stuck-queue",
        for_seconds=300.0,
    ),
    AlertRule(
        "failure-rate",
        WARNING,
        "The share of an agent's runs that have failed in the last 15 minutes: its lower bound with 99 % confidence.",
        0.2,
        "share",
        "high-failure-rate",
        keep_seconds=WINDOW_SECONDS,
    ),
    AlertRule(
        "tool-failure-rate",
        WARNING,
        "The share of a tool's calls that have failed in the last 15 minutes: its lower bound with 99 % confidence.",
        0.2,
        "share",
        "high-failure-rate",
        keep_seconds=WINDOW_SECONDS,
    ),
    AlertRule(
        "attempts-lost",
        WARNING,
        "Attempts of an agent that were lost with their worker in the last 15 minutes.",
        3.0,
        "attempts",
        "worker-lost",
        for_seconds=0.0,
    ),
    AlertRule(
        "worker-silent",
        CRITICAL,
        "How long ago a worker's lease ran out without its having stopped; over after 15 minutes.",
        0.0,
        "seconds",
        "worker-lost",
        for_seconds=0.0,
    ),
    AlertRule(
        "breaker-open",
        WARNING,
        "Since when the breaker of a dependency is not closed.",
        0.0,
        "seconds",
        "dependency-down",
        for_seconds=30.0,
    ),
    AlertRule(
        "budget-burn",
        WARNING,
        "How far spending is ahead of the day or month: the share spent, by the share of the time gone. From a quarter "
        "spent on.",
        2.0,
        "times",
        "budget-exhausted",
        for_seconds=300.0,
    ),
    AlertRule(
        "budget-forecast",
        WARNING,
        "In how long a limit is used up at the rate so far, where that is before its day or month ends. From half "
        "spent on.",
        14_400.0,
        "seconds",
        "budget-exhausted",
        for_seconds=300.0,
        fires_below=True,
    ),
    AlertRule(
        "budget-exhausted",
        CRITICAL,
        "The share of a daily or monthly limit that is used.",
        1.0,
        "share",
        "budget-exhausted",
        for_seconds=0.0,
    ),
    AlertRule(
        "action-cap-reached",
        CRITICAL,
        "The share of a cap on actions that is used; its text begins with ACTION_CAP_REACHED.",
        1.0,
        "share",
        "budget-exhausted",
        for_seconds=0.0,
    ),
    AlertRule(
        "limit-overrun",
        WARNING,
        "Calls of an agent in the last 15 minutes that cost more than was reserved for them.",
        1.0,
        "calls",
        "budget-exhausted",
        for_seconds=0.0,
    ),
    AlertRule(
        "approval-deadline",
        WARNING,
        "How long until the next deadline of an agent's pending approvals.",
        900.0,
        "seconds",
        "approvals-waiting",
        for_seconds=0.0,
        keep_seconds=60.0,
        fires_below=True,
    ),
    AlertRule(
        "approvals-waiting",
        WARNING,
        "How long an agent's oldest pending approval has waited.",
        3_600.0,
        "seconds",
        "approvals-waiting",
    ),
    AlertRule(
        "effects-unknown",
        CRITICAL,
        "Calls of a tool of which nobody knows whether they took place.",
        1.0,
        "calls",
        "bad-action",
        keep_seconds=60.0,
    ),
    AlertRule(
        "dead-letters-growing",
        WARNING,
        "How many more dead letters an agent has than an hour ago.",
        10.0,
        "runs",
        "high-failure-rate",
    ),
    AlertRule(
        "runaway-suspected",
        CRITICAL,
        "Runs of an agent that were halted because they may have run away.",
        1.0,
        "runs",
        "runaway-agent",
        for_seconds=0.0,
        keep_seconds=60.0,
    ),
    AlertRule(
        "calibration-off",
        WARNING,
        "How far the confidence that an agent states is from what came of it.",
        0.1,
        "share",
        "wrong-outputs",
        for_seconds=0.0,
    ),
    AlertRule(
        "incident-open",
        WARNING,
        "Open critical incidents of an agent.",
        1.0,
        "incidents",
        "bad-action",
        for_seconds=0.0,
        keep_seconds=0.0,
    ),
    AlertRule(
        "cost-drift",
        WARNING,
        "Evidence that an agent's cost per run has risen, against its own history: at this threshold one false alarm "
        "in as many blocks of ten runs or more, at most.",
        FALSE_ALARM_BLOCKS,
        "blocks",
        "wrong-outputs",
        for_seconds=0.0,
    ),
    AlertRule(
        "latency-drift",
        WARNING,
        "The same for how long its runs take.",
        FALSE_ALARM_BLOCKS,
        "blocks",
        "wrong-outputs",
        for_seconds=0.0,
    ),
    AlertRule(
        "tool-mix-drift",
        WARNING,
        "The same for which tools its runs call, in what shares.",
        FALSE_ALARM_BLOCKS,
        "blocks",
        "wrong-outputs",
        for_seconds=0.0,
    ),
    AlertRule(
        "audit-seal-late",
        WARNING,
        "How long the oldest audit record without a seal has waited for one.",
        300.0,
        "seconds",
        "audit-seal",
    ),
    AlertRule(
        "chore-late",
        WARNING,
        "How long ago the lease of a chore of the scheduler ran out.",
        60.0,
        "seconds",
        "daily-checks",
    ),
    AlertRule(
        "disk-low",
        CRITICAL,
        "The free share of the disk that holds the SQLite file, or the scheduler's working directory.",
        0.1,
        "share",
        "disk",
        fires_below=True,
    ),
    AlertRule(
        "database-slow",
        WARNING,
        "How long the database takes for the simplest question of the evaluator.",
        1.0,
        "seconds",
        "database",
    ),
    AlertRule(
        "database-unreachable",
        CRITICAL,
        "How long the database has given no answer; told once it answers again, and in the log meanwhile.",
        10.0,
        "seconds",
        "database",
        for_seconds=0.0,
        keep_seconds=60.0,
    ),
    AlertRule(
        "clock-skew",
        WARNING,
        "How far the scheduler's clock is from the database's.",
        2.0,
        "seconds",
        "database",
    ),
    AlertRule(
        "switch-tripped",
        INFO,
        "A kill switch is tripped: for how long.",
        0.0,
        "seconds",
        "runaway-agent",
        for_seconds=0.0,
        keep_seconds=0.0,
    ),
)

NAMES: tuple[str, ...] = tuple(rule.name for rule in RULES)


def rules_with(changes: Mapping[str, AlertChange]) -> tuple[AlertRule, ...]:
    """Every rule as the settings want it."""
    return changed(RULES, changes)


def rule_named(name: str, rules: Iterable[AlertRule] = RULES) -> AlertRule | None:
    return next((rule for rule in rules if rule.name == name), None)


def queue_advice(depth: int) -> str:
    """What the scale matrix says of an average queue: from 100 watch it, from 500 add workers, from 1000 add more."""
    if depth > 1_000:
        return "add 3 or more workers"
    if depth >= 500:
        return "add 1 or 2 workers"
    return "watch it" if depth >= 100 else "no more workers are needed"
