"""Runbooks: Markdown with a few lines in front and numbered steps, whose commands can be run one by one.

```
---
title: The queue is stuck
when: runs stay queued
severity: critical
---

## Steps

### 1. See what waits

    pilothouse top --once        (in a block fenced as `sh`)
```

A command is a line of such a block that begins with `pilothouse`. `{agent}` in it is asked for, or given.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_FRONT = re.compile(r"\A---\n(?P<lines>.*?)\n---\n(?P<body>.*)\Z", re.DOTALL)
_STEP = re.compile(r"^### (?P<number>\d+)\. (?P<title>.+)$", re.MULTILINE)
_SECTION = re.compile(r"^## ", re.MULTILINE)
_BLOCK = re.compile(r"^```sh\n(?P<lines>.*?)^```$", re.MULTILINE | re.DOTALL)
_PLACE = re.compile(r"\{([a-z_]+)\}")
_PROGRAM = "pilothouse"


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what to look at or do, and the commands for it, without the program's name."""

    number: int
    title: str
    text: str
    commands: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Runbook:
    """`when` says what it is for, `body` is its Markdown without the lines in front."""

    name: str
    title: str
    when: str
    severity: str
    body: str
    steps: tuple[Step, ...]

    @property
    def places(self) -> tuple[str, ...]:
        """What its commands need to be told, such as `agent`."""
        found = (place for step in self.steps for command in step.commands for place in places_of(command))
        return tuple(dict.fromkeys(found))


def parse_runbook(name: str, text: str) -> Runbook:
    """The runbook that a file holds. Raises ValueError where lines in front are missing, or steps out of order."""
    front = _FRONT.match(text)
    if front is None:
        raise ValueError(f"runbook {name}: it does not begin with lines between ---")
    facts = dict(_pair(line) for line in front["lines"].splitlines())
    missing = {"title", "when", "severity"} - facts.keys()
    if missing:
        raise ValueError(f"runbook {name}: it has no {', '.join(sorted(missing))}")
    steps = tuple(_steps(front["body"]))
    if [step.number for step in steps] != list(range(1, len(steps) + 1)):
        raise ValueError(f"runbook {name}: its steps are not numbered from 1 on")
    return Runbook(name, facts["title"], facts["when"], facts["severity"], front["body"].strip() + "\n", steps)


def _pair(line: str) -> tuple[str, str]:
    key, _, value = line.partition(":")
    return key.strip(), value.strip()


def _steps(body: str) -> Iterator[Step]:
    heads = list(_STEP.finditer(body))
    for head, following in zip(heads, [*heads[1:], None], strict=True):
        text = body[head.end() : following.start() if following else len(body)]
        after = _SECTION.search(text)
        text = text[: after.start()] if after else text
        commands = [line for block in _BLOCK.finditer(text) for line in block["lines"].splitlines()]
        own = tuple(line.removeprefix(_PROGRAM).strip() for line in commands if line.startswith(f"{_PROGRAM} "))
        yield Step(int(head["number"]), head["title"].strip(), _BLOCK.sub("", text).strip(), own)


def places_of(command: str) -> tuple[str, ...]:
    """What a command needs to be told."""
    return tuple(dict.fromkeys(_PLACE.findall(command)))


def arguments_of(command: str, given: Mapping[str, str]) -> list[str]:
    """The words of a command, with what was given in its places: a value stays one word, whatever is in it."""
    return [_PLACE.sub(lambda found: given.get(found[1], found[0]), word) for word in shlex.split(command)]
