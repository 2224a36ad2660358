"""Which commands only read. Whatever is not named here is taken to change something."""

from __future__ import annotations

READING = frozenset(
    {
        "agents autonomy", "agents calibration", "agents list", "agents show",
        "alerts list", "alerts rules", "alerts show", "alerts silences",
        "approvals list", "approvals show", "audit show", "audit tail", "audit verify",
        "budget explain", "budget list", "budget unsettled", "config show", "cost report",
        "db check", "db status", "db storage", "dead list", "diagnose", "effects list", "effects show",
        "incident list", "incident show", "keys list", "policy explain", "policy list", "policy test",
        "profile report", "profile run", "runbook list", "runbook show", "runs list", "runs show", "runs why",
        "schedules list", "schedules show", "stability report", "stability status", "status", "switch list",
        "tenants list", "tenants show", "top", "version", "workers list", "workflow check", "workflow graph",
    }
)  # fmt: skip
"""`diagnose` writes a file of its own, and nothing that anybody else has."""

DRY_RUN = "--dry-run"


def only_reads(words: list[str]) -> bool:
    """Whether a command, such as `runs cancel ID --dry-run`, leaves everything as it is."""
    return words[:1] == ["top"] or DRY_RUN in words or bool({words[0], " ".join(words[:2])} & READING)
