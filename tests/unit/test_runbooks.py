"""The runbooks that are shipped: each has its parts, and each of its commands is one that there is."""

from __future__ import annotations

import re

import pytest

from pilothouse.cli.main import COMMANDS, TREE, build
from pilothouse.cli.reading import READING, only_reads
from pilothouse.control.runbooks import runbooks
from pilothouse.domain.runbooks import Runbook, arguments_of, parse_runbook

NAMES = {
    "stuck-queue", "high-failure-rate", "wrong-outputs", "dependency-down", "prompt-change", "new-agent",
    "runaway-agent", "bad-action", "daily-checks", "worker-lost", "budget-exhausted", "approvals-waiting", "audit-seal",
    "database", "disk",
}  # fmt: skip
EXAMPLES = {"usd": "5", "severity": "critical"}
FRONT = "---\ntitle: T\nwhen: W\nseverity: routine\n---\n"
ALL = list(runbooks().values())
LINES = [(each.name, step.number, command) for each in ALL for step in each.steps for command in step.commands]
SPOKEN = re.compile(r"`pilothouse ([a-z][a-z -]*)[^`]*`")
HEADINGS = ("## Overview", "## Normal ranges", "## Steps", "## Escalation", "## Recovery")


def test_all_that_are_promised_are_there() -> None:
    assert {each.name for each in ALL} == NAMES


@pytest.mark.parametrize("runbook", ALL, ids=lambda each: each.name)
def test_a_runbook_has_all_its_parts(runbook: Runbook) -> None:
    places = [runbook.body.index(heading) for heading in HEADINGS]

    assert places == sorted(places)
    assert runbook.severity in ("critical", "warning", "routine")
    assert all(step.text or step.commands for step in runbook.steps)
    assert all(
        line.startswith("pilothouse ")
        for block in re.findall(r"```sh\n(.*?)```", runbook.body, re.DOTALL)
        for line in block.splitlines()
    )


@pytest.mark.parametrize(("name", "steps"), [("runaway-agent", 8), ("bad-action", 7)])
def test_the_known_ways_have_their_steps(name: str, steps: int) -> None:
    assert len(runbooks()[name].steps) == steps


@pytest.mark.parametrize(("name", "number", "command"), LINES)
def test_every_command_is_one_that_there_is(name: str, number: int, command: str) -> None:
    given = {place: EXAMPLES.get(place, "x") for place in runbooks()[name].places}

    words = arguments_of(command, given)
    found, _, left = build().parse_args(words, exit_on_error=False, print_error=False)

    assert callable(found)
    assert not left
    assert not any("{" in word for word in words)


@pytest.mark.parametrize("runbook", ALL, ids=lambda each: each.name)
def test_commands_that_are_only_spoken_of_exist_too(runbook: Runbook) -> None:
    for spoken in SPOKEN.findall(runbook.body):
        words = spoken.split()
        assert words[0] in build(), spoken
        if words[0] in TREE and len(words) > 1:
            assert words[1] in TREE[words[0]][1], spoken


def test_what_is_said_to_read_only_is_a_command() -> None:
    known = {f"{noun} {verb}" for noun, (_, verbs) in TREE.items() for verb in verbs}

    assert known.union(COMMANDS) >= READING


@pytest.mark.parametrize(
    ("words", "reads"),
    [
        (["runs", "show", "x"], True),
        (["runs", "cancel", "x"], False),
        (["runs", "cancel", "x", "--dry-run"], True),
        (["top", "--once"], True),
        (["switch", "trip", "global"], False),
        (["db", "migrate"], False),
        (["backup"], False),
    ],
)
def test_whatever_is_not_known_to_read_changes_something(words: list[str], reads: bool) -> None:
    assert only_reads(words) is reads


def test_a_value_stays_one_word_whatever_is_in_it() -> None:
    words = arguments_of('runs cancel {run} --reason "about {run}"', {"run": "a b'; rm -rf / --lineage"})

    assert words == ["runs", "cancel", "a b'; rm -rf / --lineage", "--reason", "about a b'; rm -rf / --lineage"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("# Steps", "lines between ---"),
        ("---\ntitle: T\n---\n", "severity, when"),
        (FRONT + "### 2. Two\n", "numbered from 1"),
    ],
)
def test_a_runbook_that_is_none_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_runbook("x", text)


def test_a_step_ends_where_the_next_section_begins() -> None:
    runbook = parse_runbook(
        "x", FRONT + "### 1. One\nLook.\n```sh\npilothouse top --once\n```\n## Escalation\n```sh\npilothouse x\n```\n"
    )

    (step,) = runbook.steps
    assert (step.title, step.text, step.commands) == ("One", "Look.", ("top --once",))
