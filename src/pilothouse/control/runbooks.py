"""Runbooks: those that are shipped, and the record that somebody went through one."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from pilothouse.control import audit
from pilothouse.domain.runbooks import Runbook, Step, parse_runbook, places_of
from pilothouse.errors import NotFound
from pilothouse.store.database import Database

FOLDER = "runbooks"


@cache
def runbooks() -> dict[str, Runbook]:
    """All of them, by name."""
    found = {}
    for file in files("pilothouse").joinpath(FOLDER).iterdir():
        name, _, suffix = file.name.rpartition(".")
        if suffix == "md":
            found[name] = parse_runbook(name, file.read_text(encoding="utf-8"))
    return dict(sorted(found.items()))


def find_runbook(name: str) -> Runbook:
    """Raises NotFound."""
    found = runbooks().get(name)
    if found is None:
        raise NotFound(f"there is no runbook {name!r}; `pilothouse runbook list` shows them")
    return found


def summary(runbook: Runbook) -> dict[str, Any]:
    """A line of a list."""
    return {
        "name": runbook.name,
        "title": runbook.title,
        "when": runbook.when,
        "severity": runbook.severity,
        "steps": len(runbook.steps),
    }


def public(runbook: Runbook) -> dict[str, Any]:
    """A runbook as users see it, with its Markdown and its steps."""
    steps = [_step(step) for step in runbook.steps]
    return summary(runbook) | {"places": runbook.places, "body": runbook.body, "steps": steps}


def _step(step: Step) -> dict[str, Any]:
    commands = [{"command": f"pilothouse {line}", "places": places_of(line)} for line in step.commands]
    return {"number": step.number, "title": step.title, "text": step.text, "commands": commands}


async def record_run(db: Database, name: str, *, principal: str, told: str) -> None:
    """Notes in the audit that somebody went through a runbook, and how far. Raises NotFound."""
    runbook = find_runbook(name)
    entry = audit.entry("runbook.run", "runbook", runbook.name, principal=principal, reason=told)
    await db.transaction(lambda tx: audit.record(tx, [entry]))
