"""Writes the reference pages that the code knows best: `python docs/generate.py`, or `--check` for stale ones."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pilothouse
from pilothouse import errors
from pilothouse.agents.workflow.json_schema import workflow_schema
from pilothouse.cli.main import COMMANDS, TREE
from pilothouse.config import Settings, environment_names
from pilothouse.domain.alert_rules import RULES
from pilothouse.telemetry import catalogue, events
from pilothouse.telemetry.event import Event

REFERENCE = Path(__file__).parent / "reference"
NOTE = "<!-- Written by docs/generate.py from the code; change it there. -->"
ACTION = re.compile(r'"((?:run|worker|agent|alert|approval|policy|switch)\.[a-z_]+)"')


def commands() -> Iterator[str]:
    yield from ("# Command line", "", NOTE, "")
    yield "Every command takes `--help`, and `--json` where it prints. Exit codes: 0 done, 1 refused or failed, 2 wrong"
    yield "usage, 130 interrupted; those of `status` are its own. With `--json` an error is one line of JSON on"
    yield "standard error: as `error` its code, which HTTP has too, and its `message`."
    yield "`PILOTHOUSE_DEBUG=1` shows the traceback of an error."
    for name, (target, help_text) in COMMANDS.items():
        yield from _command(f"pilothouse {name}", target, help_text)
    for noun, (_, verbs) in TREE.items():
        for verb, (target, help_text) in verbs.items():
            yield from _command(f"pilothouse {noun} {verb}", target, help_text)


def _command(name: str, target: str, help_text: str) -> Iterator[str]:
    module_name, _, function_name = target.partition(":")
    function = getattr(importlib.import_module(f"pilothouse.cli.{module_name}"), function_name)
    yield from ("", f"## {name}", "", inspect.getdoc(function) or help_text, "")
    rows = list(_parameters(function))
    if rows:
        yield from ("| parameter | default | |", "| --- | --- | --- |", *rows)


def _parameters(function: Callable[..., Any]) -> Iterator[str]:
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        if is_dataclass(hints[name]):
            yield from _parameters(hints[name])
            continue
        given = _cli_parameter(hints[name])
        shown = f"--{name.replace('_', '-')}" if parameter.kind is parameter.KEYWORD_ONLY else name.upper()
        names = given.name if given and given.name else (shown,)
        default = "" if parameter.default in (parameter.empty, None, "", False) else f"`{parameter.default}`"
        yield f"| {', '.join(f'`{each}`' for each in names)} | {default} | {given.help or '' if given else ''} |"


def _cli_parameter(hint: Any) -> Any:
    return get_args(hint)[1] if get_origin(hint) is Annotated else None


def settings() -> Iterator[str]:
    yield from ("# Settings", "", NOTE, "")
    yield "The environment comes first, then `pilothouse.toml` in the working directory, where the names are those of"
    yield "the first column; an unknown one is an error. `pilothouse config show` prints each with value and source."
    yield from ("", "| setting | in the environment | default | |", "| --- | --- | --- | --- |")
    for name, field in Settings.model_fields.items():
        variables = ", ".join(f"`{variable}`" for variable in environment_names(name))
        default = "" if field.default is None or field.default_factory is not None else f"`{field.default}`"
        yield f"| `{name}` | {variables} | {default} | {field.description} |"


def error_classes() -> Iterator[str]:
    yield from ("# Errors", "", NOTE, "")
    yield from ("All are in `pilothouse.errors`; those of `pilothouse` itself can be imported from there.", "")
    for name, kind in vars(errors).items():
        if inspect.isclass(kind) and kind.__module__ == errors.__name__ and issubclass(kind, BaseException):
            base = kind.__mro__[1].__name__
            yield f"- **{name}** ({base}): {' '.join((inspect.getdoc(kind) or '').split())}"


def events_and_audit() -> Iterator[str]:
    yield from ("# Events and audit", "", NOTE, "", "## Events", "")
    yield "What a process tells its sinks: the log, one line per event, and, where they are on, traces and MLflow."
    yield "Instants (`…_at`) are microseconds since the epoch. Fields in italics hold what people and models said; they"
    yield "are empty unless `trace_content` is on, and are never logged."
    for kind in events.kinds().values():
        told = [each.name if each.name in _told(kind) else f"*{each.name}*" for each in fields(kind)]
        summary = " ".join((inspect.getdoc(kind) or "").split())
        yield from ("", f"### {kind.name}", "", f"{summary}", "", f"Level {kind.level}; {', '.join(told)}.")
    yield from ("", "## Audit actions", "")
    yield "What the audit records, each in the transaction of the change. `pilothouse audit tail` and"
    yield "`GET /api/v1/audit` show them."
    yield ""
    yield from (f"- `{action}`" for action in _audit_actions())


def metrics() -> Iterator[str]:
    yield from ("# Metrics", "", NOTE, "")
    yield "What `GET /metrics` says; [Monitor](../how-to/monitoring.md) tells how to scrape, chart and alert on it."
    yield from ("", "| metric | kind | labels | | known elsewhere as |", "| --- | --- | --- | --- | --- |")
    for each in catalogue.CATALOGUE:
        labels = ", ".join(f"`{label}`" for label in each.labels)
        yield f"| `{each.name}` | {each.kind} | {labels} | {each.help} | {each.elsewhere} |"
    yield from ("", "Beside them come the figures of the answering process: `process_cpu_seconds_total`,")
    yield "`process_resident_memory_bytes`, `process_open_fds` and the like."


def _told(kind: type[Event]) -> set[str]:
    return {each.name for each in fields(kind) if "content" not in each.metadata}


def _audit_actions() -> list[str]:
    root = Path(inspect.getfile(pilothouse)).parent
    sources = [*(root / "control").glob("*.py"), root / "domain" / "runs.py"]
    return sorted({action for source in sources for action in ACTION.findall(source.read_text(encoding="utf-8"))})


def python() -> Iterator[str]:
    yield from (
        "# Python",
        "",
        NOTE,
        "",
        "Everything here is imported from `pilothouse`; the test platform from `pilothouse.testing`.",
    )
    from pilothouse.testing import TestPlatform

    public = [(name, getattr(pilothouse, name)) for name in pilothouse.__all__ if not name.startswith("_")]
    for name, value in [*public, ("TestPlatform", TestPlatform)]:
        yield from ("", f"## {name}", "", inspect.getdoc(value) or "")
        for method_name, method in _methods(value):
            yield from ("", f"### {name}.{method_name}", "", "```text", f"{method_name}{_signature(method)}", "```", "")
            yield inspect.getdoc(method) or "See the class of the same operation above."


def _methods(kind: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    for name, member in vars(kind).items():
        if not name.startswith("_") and inspect.isfunction(member):
            yield name, member


def _signature(function: Callable[..., Any]) -> str:
    return str(inspect.signature(function)).replace("'", "")


def alert_rules() -> Iterator[str]:
    yield from ("# Rules of alerts", "", NOTE, "")
    yield "What fires, from which value on, and which runbook helps: `pilothouse runbook show NAME`."
    yield "[Alerts](../how-to/alerts.md) tells how to change a rule, and who is told. A rule fires once it has been met"
    yield "for the time under `for`; it is resolved once it has been clear, by a tenth of the threshold, for that under"
    yield "`kept`."
    names = ("rule", "severity", "threshold", "for", "kept", "runbook", "measures")
    yield from ("", f"| {' | '.join(names)} |", "| --- " * len(names) + "|")
    for rule in RULES:
        side = "≤" if rule.fires_below else "≥"
        yield (
            f"| `{rule.name}` | {rule.severity} | {side} {rule.threshold:,g} {rule.unit} | {rule.for_seconds:g} s | "
            f"{rule.keep_seconds:g} s | {rule.runbook} | {rule.measures} |"
        )


def workflow_schema_lines() -> Iterator[str]:
    yield from json.dumps(workflow_schema(), indent=2, ensure_ascii=False).splitlines()


PAGES: dict[str, Callable[[], Iterator[str]]] = {
    "cli.md": commands,
    "settings.md": settings,
    "errors.md": error_classes,
    "events.md": events_and_audit,
    "metrics.md": metrics,
    "python.md": python,
    "alerts.md": alert_rules,
    "workflow.schema.json": workflow_schema_lines,
}


def stale_pages() -> dict[Path, str]:
    """The pages that differ from what the code says, and what they should be."""
    wanted = {REFERENCE / name: "\n".join(write()).rstrip() + "\n" for name, write in PAGES.items()}
    return {path: text for path, text in wanted.items() if not path.exists() or path.read_text("utf-8") != text}


def main() -> int:
    stale = stale_pages()
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path.name} is stale; run `python docs/generate.py`", file=sys.stderr)  # noqa: T201
        return int(bool(stale))
    for path, text in stale.items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
