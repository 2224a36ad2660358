"""`runbook`: list, show, run."""

from __future__ import annotations

import io
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from cyclopts import CycloptsError, Parameter
from rich.markdown import Markdown
from rich.prompt import Prompt
from rich.text import Text

from pilothouse.cli import output
from pilothouse.cli.output import AsJson
from pilothouse.cli.reading import DRY_RUN, only_reads
from pilothouse.cli.session import principal
from pilothouse.cli.session import run as on_database
from pilothouse.control import runbooks as verbs
from pilothouse.domain.runbooks import Runbook, Step, arguments_of, places_of
from pilothouse.errors import FieldError, InvalidInput, PilothouseError

Outcome = Literal["done", "failed", "left out", "would run"]
OUTCOME_STYLES: Mapping[Outcome, str] = {
    "done": "green",
    "failed": "bold red",
    "left out": "yellow",
    "would run": "cyan",
}
MAX_SHOWN = 20_000

Name = Annotated[str, Parameter(help="The runbook's name, as `runbook list` shows it.")]


def list_runbooks(*, as_json: AsJson = False) -> None:
    """Every runbook, and when it is for."""
    rows = [verbs.summary(each) for each in verbs.runbooks().values()]
    if as_json:
        return output.print_json(rows)
    made = output.table("runbook", ("when", "fold"), "severity", ("steps", "right"))
    for row in rows:
        made.add_row(row["name"], row["when"], row["severity"], str(row["steps"]))
    return output.print_table(made, empty="no runbooks", spare=("steps",))


def show(name: Name, *, as_json: AsJson = False) -> None:
    """A runbook, whole."""
    runbook = verbs.find_runbook(name)
    if as_json:
        return output.print_json(verbs.public(runbook))
    out = output.console()
    out.print(Text.assemble((runbook.title, "bold"), f"  {runbook.severity}, when {runbook.when}"), soft_wrap=True)
    out.print()
    out.print(Markdown(runbook.body) if out.is_terminal else Text(runbook.body), soft_wrap=not out.is_terminal)
    return out.print(f"step by step: `pilothouse runbook run {name}`", style="dim", soft_wrap=True)


def run(
    name: Name,
    *,
    given: Annotated[
        list[str] | None, Parameter(name="--set", negative="", help="What a command needs, such as agent=desk.")
    ] = None,
    dry_run: Annotated[
        bool, Parameter(negative="", help="Say what each step would do; of commands that can, run their own dry run.")
    ] = False,
    yes: Annotated[
        bool,
        Parameter(
            name=["--yes", "-y"], negative="", help="Do not stop between steps. What changes something still asks."
        ),
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Go through a runbook step by step. Commands that only read are run; others ask first.

    They are left out where nobody can be asked. Exits with 1 if a command has failed.
    """
    runbook = verbs.find_runbook(name)
    is_asking = sys.stdin.isatty() and output.console().is_terminal and not as_json
    walk = Walk(
        runbook,
        _pairs(runbook, given or []),
        is_asking=is_asking,
        dry_run=dry_run,
        pauses=is_asking and not yes and not dry_run,
        as_json=as_json,
    )
    walk.go()
    told = walk.told()
    is_recorded = dry_run or _recorded(name, told)
    if as_json:
        output.print_json(
            {"runbook": name, "dry_run": dry_run, "recorded": is_recorded and not dry_run, "commands": walk.done}
        )
    else:
        output.console().print(Text.assemble(("\n" + told, "bold")), soft_wrap=True)
    return 1 if walk.count("failed") else 0


def _pairs(runbook: Runbook, given: Sequence[str]) -> dict[str, str]:
    found = {}
    for pair in given:
        key, sign, value = pair.partition("=")
        if not sign or key not in runbook.places:
            known = f"{', '.join(runbook.places)}, each as name=value" if runbook.places else "no --set at all"
            raise InvalidInput(f"--set {pair!r}: this runbook takes {known}", [FieldError("set", pair)])
        found[key] = value
    return found


def _recorded(name: str, told: str) -> bool:
    """Whether the audit has it. A runbook is there for the day on which the database is not."""
    try:
        on_database(lambda db: verbs.record_run(db, name, principal=principal(), told=told))
    except PilothouseError as error:
        output.errors().print(f"this is not in the audit: {error}", style="yellow", soft_wrap=True)
        return False
    return True


class _Quit(Exception):
    """Who goes through it has had enough."""


@dataclass
class Walk:
    """One way through a runbook. `done` is what became of each command."""

    runbook: Runbook
    given: dict[str, str]
    is_asking: bool
    dry_run: bool
    pauses: bool
    as_json: bool
    done: list[dict[str, Any]] = field(default_factory=list)

    def go(self) -> None:
        try:
            for step in self.runbook.steps:
                self._step(step)
        except (_Quit, EOFError, KeyboardInterrupt):
            return

    def told(self) -> str:
        """What became of it, in a line."""
        last = self.done[-1]["step"] if self.done else 0
        counts = [f"{self.count(outcome)} {outcome}" for outcome in OUTCOME_STYLES if self.count(outcome)]
        steps = f"steps 1 to {last} of {len(self.runbook.steps)}"
        return f"{self.runbook.name}: {steps}; commands: {', '.join(counts) or 'none'}"

    def count(self, outcome: Outcome) -> int:
        return sum(1 for each in self.done if each["outcome"] == outcome)

    def _step(self, step: Step) -> None:
        if not self.as_json:
            out = output.console()
            out.print(Text.assemble((f"\n{step.number}. {step.title}", "bold")), soft_wrap=True)
            if step.text:
                out.print(Markdown(step.text) if out.is_terminal else Text(step.text), soft_wrap=not out.is_terminal)
        for command in step.commands:
            self._command(step, command)
        if self.pauses and step is not self.runbook.steps[-1] and _ask("go on?", ("y", "q"), "y") == "q":
            raise _Quit

    def _command(self, step: Step, command: str) -> None:
        missing = self._missing(command)
        words = arguments_of(command, self.given)
        if self.dry_run:
            words = _as_dry_run(words)
        self._say(Text.assemble(("$ ", "dim"), ("pilothouse " + _joined(words), "bold")))
        outcome, code, text = self._outcome(words, missing)
        self.done.append(
            {
                "step": step.number,
                "command": f"pilothouse {_joined(words)}",
                "outcome": outcome,
                "code": code,
                "output": text,
            }
        )
        if outcome in ("left out", "failed"):
            why = f"it needs --set {missing[0]}=…" if missing else "" if code is None else f"it exited with {code}"
            self._say(Text(f"{outcome}{': ' + why if why else ''}", style=OUTCOME_STYLES[outcome]))

    def _outcome(self, words: list[str], missing: Sequence[str]) -> tuple[Outcome, int | None, str | None]:
        if self.dry_run and DRY_RUN not in words:
            self._say(
                Text("would only read" if only_reads(words) else "would change something, and ask first", style="dim")
            )
            return "would run", None, None
        if missing or not self._may_run(words):
            return "left out", None, None
        code, text = self._run(words)
        return ("done" if code == 0 else "failed"), code, text

    def _missing(self, command: str) -> list[str]:
        """What nobody has said. On a terminal it is asked for once; an empty answer leaves the command out."""
        for place in places_of(command):
            if place not in self.given and self.is_asking and not self.dry_run:
                said = Prompt.ask(
                    f"  {place} (empty: leave this out)", console=output.console(), default="", show_default=False
                )
                if said.strip():
                    self.given[place] = said.strip()
        return [place for place in places_of(command) if place not in self.given]

    def _may_run(self, words: list[str]) -> bool:
        if only_reads(words):
            return True
        if not self.is_asking:
            return False
        said = _ask("this changes something; run it?", ("y", "n", "q"), "n")
        if said == "q":
            raise _Quit
        return said == "y"

    def _run(self, words: list[str]) -> tuple[int, str | None]:
        """Runs it here. Its output goes where ours goes, or into the answer."""
        from pilothouse.cli.main import answered

        if not self.as_json:
            return answered(words), None
        said = io.StringIO()
        with redirect_stdout(said), redirect_stderr(said):
            code = answered(words)
        return code, said.getvalue()[:MAX_SHOWN]

    def _say(self, text: Text) -> None:
        if not self.as_json:
            output.console().print(text, soft_wrap=True)


def _ask(question: str, choices: Sequence[str], default: str) -> str:
    return Prompt.ask(f"  {question}", choices=list(choices), default=default, console=output.console())


def _joined(words: Sequence[str]) -> str:
    """As one would type it; places that are not filled stay readable."""
    return " ".join(word if word.startswith("{") else shlex.quote(word) for word in words)


def _as_dry_run(words: list[str]) -> list[str]:
    """With the command's own dry run, if it has one and nothing is left to be said."""
    if only_reads(words) or any(word.startswith("{") for word in words) or not _has_dry_run(words):
        return words
    return [*words, DRY_RUN]


def _has_dry_run(words: Sequence[str]) -> bool:
    """Whether the command takes `--dry-run`."""
    from pilothouse.cli.main import build

    try:
        build().parse_args([*words, DRY_RUN], exit_on_error=False, print_error=False)
    except CycloptsError:
        return False
    return True
