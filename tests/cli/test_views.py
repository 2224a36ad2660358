"""What people see: tables that fit the terminal, tracebacks of their own code, and `--json` at every command."""

from __future__ import annotations

import importlib
import inspect
import io
from typing import Any, get_args, get_type_hints

import pytest
from rich.console import Console

from pilothouse.cli import output, run_view
from pilothouse.cli.main import COMMANDS, TREE

RUN = "01a1fc13-2e02-730f-8bd4-ef9a0a8ad042"
TARGETS = [target for target, _ in COMMANDS.values()] + [
    target for _, verbs in TREE.values() for target, _ in verbs.values()
]
TRACEBACK = """Traceback (most recent call last):
  File "/site/pilothouse/engine/context.py", line 300, in run
    return await self._try()
           ^^^^^^^^^^^^^^^^^
  File "/mine/agents.py", line 22, in fail
    raise ValueError("no")
ValueError: no

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/site/pilothouse/engine/executor.py", line 145, in _handle
    return await agent.handler(*positional)
  File "/mine/agents.py", line 18, in broken
    await ctx.step("bad step", fail)
pilothouse.errors.StepError: step 'bad step' failed: ValueError: no
"""


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a console of some width that everything is printed on, and gives its text."""

    def made(width: int) -> io.StringIO:
        file = io.StringIO()
        monkeypatch.setattr(output, "console", lambda: Console(file=file, width=width, highlight=False))
        return file

    return made


@pytest.mark.parametrize("target", TARGETS)
def test_every_command_takes_json(target: str) -> None:
    module_name, _, name = target.partition(":")
    function = getattr(importlib.import_module(f"pilothouse.cli.{module_name}"), name)

    hint = get_type_hints(function, include_extras=True)["as_json"]

    assert get_args(hint)[1].name == ("--json",)
    assert inspect.signature(function).parameters["as_json"].default is False


@pytest.mark.parametrize(
    ("width", "headings"),
    [(120, "run agent state submitted took"), (80, "run agent state submitted"), (66, "run agent state")],
)
def test_a_table_leaves_out_what_the_terminal_has_no_room_for(screen: Any, width: int, headings: str) -> None:
    file = screen(width)
    made = output.table("run", ("agent", "fold"), "state", "submitted", ("took", "right"))
    made.add_row(RUN, "invoice_classifier", output.state("cancelled"), "03:07:57", "526.7 ms")

    output.print_table(made, empty="", spare=("took", "submitted"))

    lines = file.getvalue().splitlines()
    assert " ".join(lines[0].split()) == headings
    assert max(map(len, lines)) <= width
    assert RUN in file.getvalue()
    assert "invoice_classifi" in lines[2]


def test_an_empty_table_is_a_sentence(screen: Any) -> None:
    file = screen(80)

    output.print_table(output.table("run"), empty="no runs")

    assert file.getvalue() == "no runs\n"


def test_a_traceback_shows_the_users_frames_and_not_the_engines() -> None:
    error = {"type": "ValueError", "message": "no", "step": "bad step", "traceback": TRACEBACK}

    shown = run_view._error(error).plain

    assert "engine" not in shown
    assert "^^^" not in shown
    for told in ("in step 'bad step'", 'agents.py", line 22, in fail', 'raise ValueError("no")', "line 18, in broken"):
        assert told in shown


def test_a_very_long_traceback_keeps_its_end() -> None:
    frames = "".join(f'  File "/mine/a.py", line {number}, in f\n    f()\n' for number in range(100))
    error = {"type": "RecursionError", "message": "deep", "traceback": f"Traceback:\n{frames}RecursionError: deep\n"}

    lines = run_view._error(error).plain.splitlines()

    assert lines[1] == "…"
    assert lines[-1] == "RecursionError: deep"
    assert len(lines) == run_view.TRACEBACK_LINES + 2


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0004, "0.4 ms"), (1.26, "1.3 s"), (119.9, "119.9 s"), (121, "2 min 1 s"), (7265, "2 h 1 min")],
)
def test_a_duration_is_in_the_unit_that_reads_best(value: float, shown: str) -> None:
    assert output.seconds(value) == shown


def test_a_value_is_shortened_to_one_line() -> None:
    assert output.shorten({"a": [1, None]}) == '{"a":[1,null]}'
    assert output.shorten("one\n two") == "one two"
    assert output.shorten("x" * 9, 5) == "xxxx…"
