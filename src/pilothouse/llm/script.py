"""Scripted answers: what a model without a network says, and how it fails, read from YAML.

The offline models and the fake provider share it, so a script that fits one fits the other.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, get_args

from pilothouse.domain.samples import sample
from pilothouse.errors import ConfigError

FaultName = Literal[
    "rate_limited",
    "server_error",
    "timeout",
    "broken_json",
    "cut_off",
    "unauthorized",
    "not_found",
    "rejected",
    "empty",
]
FAULTS: tuple[str, ...] = get_args(FaultName)

CONDITIONS = frozenset({"contains", "matches", "after", "asks_for", "model", "system", "round"})
ANSWERS = frozenset({"say", "json", "call", "fault"})
ENTRY_KEYS = CONDITIONS | ANSWERS | {"times", "delay_seconds", "retry_after_seconds"}
SHOWN = 200


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_text_or_texts(value: object) -> bool:
    return _is_text(value) or (isinstance(value, list) and bool(value) and all(map(_is_text, value)))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_duration(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


FORMS: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "contains": (_is_text_or_texts, "text, or a list of texts of which one must be there"),
    "call": (lambda value: isinstance(value, Mapping | list), "`tool: NAME` with `arguments: {…}`, or a list of them"),
    "asks_for": (_is_text_or_texts, "the name of a type, text, or a list of fields"),
    **dict.fromkeys(("matches", "after", "model", "system"), (_is_text, "text")),
    **dict.fromkeys(("round", "times"), (_is_count, "a number of 1 or more")),
    **dict.fromkeys(("delay_seconds", "retry_after_seconds"), (_is_duration, "a number of seconds, 0 or more")),
}
"""What the values of an entry must be, and how that is told."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a model is asked, as far as a script looks at it.

    `text` is the last user message, `after` the tool whose result came last (None: no tool), `result` that result.
    `asks_for` is the title of the wanted output's schema (providers take titles away; a script may name fields of it
    instead, as a list), `round` counts the model's answers so far, from 1.
    """

    model: str
    text: str
    system: str = ""
    after: str | None = None
    result: str = ""
    asks_for: str | None = None
    schema: Mapping[str, Any] | None = None
    tools: tuple[str, ...] = ()
    round: int = 1


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A tool that the model wants called."""

    tool: str
    arguments: Any


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model says: text, JSON in the wanted form, or tools to call; or how it fails."""

    text: str | None = None
    json: Any = None
    calls: tuple[ToolUse, ...] = ()
    fault: FaultName | None = None
    retry_after_seconds: float | None = None
    delay_seconds: float = 0.0


Responder = Callable[[Question], Reply]


@dataclass(frozen=True, slots=True)
class Entry:
    """One answer and when it is given."""

    number: int
    conditions: Mapping[str, Any]
    reply: Reply
    times: int | None = None
    pattern: re.Pattern[str] | None = None

    def match(self, question: Question) -> dict[str, str] | None:
        """The named groups of its pattern where it fits, else None."""
        heard = question.result if question.after else question.text
        for name, wanted in self.conditions.items():
            if not _fits(name, wanted, question, heard):
                return None
        if self.pattern is None:
            return {}
        found = self.pattern.search(heard) or self.pattern.search(question.text)
        return None if found is None else {k: v or "" for k, v in found.groupdict().items()}


def _fits(name: str, wanted: Any, question: Question, heard: str) -> bool:
    match name:
        case "contains":
            texts = [wanted] if isinstance(wanted, str) else wanted
            return any(text.lower() in question.text.lower() or text.lower() in heard.lower() for text in texts)
        case "after":
            return bool(wanted == (question.after or "nothing"))
        case "asks_for" if isinstance(wanted, list):
            return set(wanted) <= set((question.schema or {}).get("properties", {}))
        case "asks_for":
            return bool(wanted == (question.asks_for or "text"))
        case "model":
            return fnmatchcase(question.model, wanted)
        case "system":
            return str(wanted).lower() in question.system.lower()
        case _:
            return bool(question.round == wanted)


@dataclass(slots=True)
class Script:
    """The first entry that fits a question answers it; one with `times` only so often."""

    entries: tuple[Entry, ...]
    name: str = "script"
    _used: Counter[int] = field(default_factory=Counter)

    def __call__(self, question: Question) -> Reply:
        """Raises ConfigError where no entry fits."""
        for entry in self.entries:
            if entry.times is not None and self._used[entry.number] >= entry.times:
                continue
            groups = entry.match(question)
            if groups is not None:
                self._used[entry.number] += 1
                return _fill(entry.reply, groups)
        asked = question.result if question.after else question.text
        raise ConfigError(
            f"{self.name} has no answer for {asked[:SHOWN]!r} (after: {question.after or 'nothing'}, "
            f"asks_for: {question.asks_for or 'text'}); add an entry, a last one without `when` fits everything"
        )


def _fill(reply: Reply, groups: Mapping[str, str]) -> Reply:
    if not groups:
        return reply
    calls = tuple(ToolUse(call.tool, _filled(call.arguments, groups)) for call in reply.calls)
    return replace(reply, text=_filled(reply.text, groups), json=_filled(reply.json, groups), calls=calls)


def _filled(value: Any, groups: Mapping[str, str]) -> Any:
    """`{name}` becomes what the pattern's group of that name has found."""
    match value:
        case str():
            return re.sub(r"\{(\w+)\}", lambda found: groups.get(found[1], found[0]), value)
        case dict():
            return {key: _filled(item, groups) for key, item in value.items()}
        case list():
            return [_filled(item, groups) for item in value]
        case _:
            return value


def load_script(path: str | Path) -> Script:
    """Reads a script. Raises ConfigError that names the file, the entry and what is wrong with it."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        content = YAML(typ="safe", pure=True).load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, YAMLError) as error:
        raise ConfigError(f"script {path} cannot be read: {error}") from error
    return parse_script(content, str(path))


def parse_script(content: object, name: str = "script") -> Script:
    """A script from plain data: a list of entries, or a mapping with the list under `answers`."""
    entries = content.get("answers") if isinstance(content, Mapping) else content
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{name}: a script is a list of answers, such as `- say: Hello`")
    return Script(tuple(_entry(name, number, raw) for number, raw in enumerate(entries, start=1)), name)


def _entry(name: str, number: int, raw: object) -> Entry:
    where = f"{name}, entry {number}"
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{where} is {raw!r}; an entry is a mapping, such as `say: Hello`")
    when = raw.get("when", {})
    if not isinstance(when, Mapping):
        raise ConfigError(f"{where}: when is {when!r}; it is a mapping, such as `when: {{contains: refund}}`")
    flat = {**when, **{key: value for key, value in raw.items() if key != "when"}}
    _check_form(where, flat)
    if len(ANSWERS & set(flat)) != 1:
        raise ConfigError(f"{where}: give exactly one of say, json, call and fault")
    if "fault" in flat and flat["fault"] not in FAULTS:
        raise ConfigError(f"{where}: fault {flat['fault']!r} does not exist; use {', '.join(FAULTS)}")
    try:
        pattern = re.compile(flat["matches"], re.IGNORECASE | re.DOTALL) if "matches" in flat else None
    except re.error as error:
        raise ConfigError(f"{where}: matches is no pattern: {error}") from error
    conditions = {key: flat[key] for key in CONDITIONS & set(flat) if key != "matches"}
    return Entry(number, conditions, _reply(where, flat), flat.get("times"), pattern)


def _check_form(where: str, flat: Mapping[str, Any]) -> None:
    for key, value in flat.items():
        if key not in ENTRY_KEYS:
            near = get_close_matches(str(key), ENTRY_KEYS, n=1)
            meant = f"did you mean {near[0]!r}?" if near else f"use {', '.join(sorted(ENTRY_KEYS))}"
            raise ConfigError(f"{where}: unknown key {key!r}; {meant}")
        is_fit, wanted = FORMS.get(key, (None, ""))
        if is_fit is not None and not is_fit(value):
            raise ConfigError(f"{where}: {key} is {value!r}; it is {wanted}")


def _reply(where: str, flat: Mapping[str, Any]) -> Reply:
    calls = flat.get("call", [])
    calls = [calls] if isinstance(calls, Mapping) else calls
    for call in calls:
        if not isinstance(call, Mapping) or set(call) - {"tool", "arguments"} or "tool" not in call:
            raise ConfigError(f"{where}: a call is `tool: NAME` with `arguments: {{…}}`, not {call!r}")
    return Reply(
        text=None if flat.get("say") is None else str(flat["say"]),
        json=flat.get("json"),
        calls=tuple(ToolUse(call["tool"], call.get("arguments", {})) for call in calls),
        fault=flat.get("fault"),
        retry_after_seconds=flat.get("retry_after_seconds"),
        delay_seconds=flat.get("delay_seconds", 0.0),
    )


def echo(question: Question) -> Reply:
    """Says what it was asked; where a form is wanted, the least that fits it, with the question in its texts."""
    if question.schema is None:
        return Reply(text=question.text)
    return Reply(json=sample(question.schema, question.text))
