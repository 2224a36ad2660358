"""Writes the reference pages that the code knows best: `python docs/generate.py`, or `--check` for stale ones."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pilothouse
from pilothouse import errors
from pilothouse.cli.main import COMMANDS, TREE
from pilothouse.config import Settings, environment_names
from pilothouse.telemetry import events

REFERENCE = Path(__file__).parent / "reference"
NOTE = "<!-- Written by docs/generate.py from the code; change it there. -->"
ACTION = re.compile(r'"((?:run|worker|agent)\.[a-z_]+)"')


def commands() -> Iterator[str]:
    yield from ("# Command line", "", NOTE, "")
    yield "Every command takes `--help`, and `--json` where it prints. Exit codes: 0 done, 1 refused or failed,"
    yield "2 wrong usage, 130 interrupted. `PILOTHOUSE_DEBUG=1` shows the traceback of an error."
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
        default = "" if field.default is None else f"`{field.default}`"
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
    yield from ("What a process tells its sinks; today that is the log, one line per event.", "")
    yield from ("| event | level | fields |", "| --- | --- | --- |")
    for kind in events.Event.__subclasses__():
        yield f"| `{kind.name}` | {kind.level} | {', '.join(field.name for field in fields(kind))} |"
    yield from ("", "## Audit actions", "")
    yield "What the audit records, each in the transaction of the change. `pilothouse audit tail` and"
    yield "`GET /api/v1/audit` show them."
    yield ""
    yield from (f"- `{action}`" for action in _audit_actions())


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


PAGES: dict[str, Callable[[], Iterator[str]]] = {
    "cli.md": commands,
    "settings.md": settings,
    "errors.md": error_classes,
    "events.md": events_and_audit,
    "python.md": python,
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
