"""Cases for policies: a file says what would be proposed and which verdict it expects; the rulebook is held to it."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pilothouse.domain.policies import Decision, Facts, Proposal, Reviewer, Rulebook, Verdict
from pilothouse.errors import ConfigError

SHORT_NAMES = {
    "amount": "amount_usd",
    "people": "people_affected",
    "tool": "action",
    "reversible": "is_reversible",
    "first_time": "is_first_time",
}
"""What people write in a case for the fields of a proposal and its facts."""

KEYS = ("name", "proposal", "facts", "verdict", "expect", "quorum", "reviewer", "rules")


@dataclass(frozen=True, slots=True)
class Case:
    """What is expected of one proposal; None and empty: anything."""

    name: str
    proposal: Proposal
    facts: Facts
    verdict: Decision
    quorum: int | None = None
    reviewer: Reviewer | None = None
    rules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a case came to. `problems` say where it is not as expected."""

    name: str
    expected: Decision
    verdict: Verdict
    problems: list[str]

    @property
    def holds(self) -> bool:
        return not self.problems


def run_cases(book: Rulebook, cases: Sequence[Case]) -> list[Outcome]:
    return [_run(book, case) for case in cases]


def _run(book: Rulebook, case: Case) -> Outcome:
    verdict, problems = book.verdict(case.proposal, case.facts), list[str]()
    if verdict.decision is not case.verdict:
        problems.append(f"expected {case.verdict}, got {verdict.decision}: {verdict.told}")
    if case.quorum not in (None, verdict.quorum):
        problems.append(f"expected a quorum of {case.quorum}, got {verdict.quorum}")
    if case.reviewer not in (None, verdict.reviewer):
        problems.append(f"expected reviewer {case.reviewer}, got {verdict.reviewer}")
    spoke = {reason.rule for reason in verdict.reasons}
    silent = [rule for rule in case.rules if rule not in spoke]
    if silent:
        problems.append(f"expected {', '.join(silent)} to speak; {', '.join(sorted(spoke)) or 'nobody'} did")
    return Outcome(case.name, case.verdict, verdict, problems)


Declares = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]
"""What is known of a tool that is called with some arguments, as fields of a proposal; empty where nothing is."""


def know_nothing(_tool: str, _arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where there is no App."""
    return {}


def read_cases(path: Path, declares: Declares = know_nothing) -> list[Case]:
    """The cases of a TOML or YAML file: `[[cases]]`, or a list. A tool is what it `declares`, unless a case says else.

    Raises ConfigError that names the case and the key.
    """
    data = _load(path)
    listed = data.get("cases", data.get("case")) if isinstance(data, Mapping) else data
    if not isinstance(listed, list) or not listed:
        raise ConfigError(f"{path} has no cases; write [[cases]] with name, proposal and verdict")
    return [_case(path, place, told, declares) for place, told in enumerate(listed, start=1)]


def _load(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix in (".yaml", ".yml"):
            from ruamel.yaml import YAML

            return YAML(typ="safe").load(text)
        return tomllib.loads(text)
    except FileNotFoundError as error:
        raise ConfigError(f"there is no file {path}") from error
    except Exception as error:  # whatever the two parsers raise is a mistake in the file
        raise ConfigError(f"{path} cannot be read: {error}") from error


def _case(path: Path, place: int, told: Any, declares: Declares) -> Case:
    where = f"{path}, case {place}"
    if not isinstance(told, Mapping):
        raise ConfigError(f"{where} is {told!r}; a case has name, proposal and verdict")
    where += f" ({told['name']})" if "name" in told else ""
    _refuse_unknown(where, told, KEYS)
    expected = told.get("verdict", told.get("expect"))
    if expected not in set(Decision):
        raise ConfigError(f"{where}: verdict is {expected!r}; it is {', '.join(Decision)}")
    values = {name: told[name] for name in ("quorum", "reviewer") if name in told}
    return Case(
        name=str(told.get("name", f"case {place}")),
        proposal=_read(where, "proposal", Proposal, _proposed(_long(told.get("proposal")), declares)),
        facts=_read(where, "facts", Facts, _with_zone(_long(told.get("facts")))),
        verdict=Decision(str(expected)),
        rules=tuple(told.get("rules", ())),
        **values,
    )


def _long(told: Any) -> dict[str, Any]:
    given: dict[str, Any] = dict(told or {})
    return {SHORT_NAMES.get(name, name): value for name, value in given.items()}


def _proposed(told: dict[str, Any], declares: Declares) -> dict[str, Any]:
    declared = declares(str(told.get("action")), told.get("arguments", {})) if told.get("kind") != "approval" else {}
    return {"agent": "agent", **declared, **told}


def _with_zone(told: dict[str, Any]) -> dict[str, Any]:
    """An instant without a zone is in UTC."""
    now = told.get("now")
    moment = datetime.fromisoformat(now) if isinstance(now, str) else now
    if isinstance(moment, datetime):
        told["now"] = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return told


def _read(where: str, part: str, kind: Any, told: dict[str, Any]) -> Any:
    _refuse_unknown(f"{where}, {part}", told, tuple(kind.__dataclass_fields__))
    try:
        return TypeAdapter(kind).validate_python(told)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        raise ConfigError(f"{where}, {part}: {'; '.join(problems)}") from error


def _refuse_unknown(where: str, told: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in told:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"the keys are {', '.join(known)}"
            raise ConfigError(f"{where}: there is no key {key!r}; {hint}")
