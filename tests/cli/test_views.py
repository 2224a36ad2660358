"""What people see: tables that fit the terminal, tracebacks of their own code, and `--json` at every command."""

from __future__ import annotations

import importlib
import inspect
import io
from typing import Any, get_args, get_type_hints

import pytest
from rich.cells import cell_len
from rich.console import Console

from pilothouse.cli import agent_view, output, run_view, step_view, top, waterfall_view
from pilothouse.cli.main import COMMANDS, GROUPS, TREE
from pilothouse.errors import NotFound

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
        monkeypatch.setattr(output, "console", lambda: Console(file=file, width=width, highlight=False, markup=False))
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

    shown = run_view.error_text(error).plain

    assert "engine" not in shown
    assert "^^^" not in shown
    for told in ("in step 'bad step'", 'agents.py", line 22, in fail', 'raise ValueError("no")', "line 18, in broken"):
        assert told in shown


def test_a_very_long_traceback_keeps_its_end() -> None:
    frames = "".join(f'  File "/mine/a.py", line {number}, in f\n    f()\n' for number in range(100))
    error = {"type": "RecursionError", "message": "deep", "traceback": f"Traceback:\n{frames}RecursionError: deep\n"}

    lines = run_view.error_text(error).plain.splitlines()

    assert lines[1] == "…"
    assert lines[-1] == "RecursionError: deep"
    assert len(lines) == run_view.TRACEBACK_LINES + 2


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (-3589.0, "0.0 ms"),
        (0.0004, "0.4 ms"),
        (1.26, "1.3 s"),
        (119.9, "119.9 s"),
        (121, "2 min 1 s"),
        (7265, "2 h 1 min"),
    ],
)
def test_a_duration_is_in_the_unit_that_reads_best(value: float, shown: str) -> None:
    assert output.seconds(value) == shown


def test_each_of_several_commands_begins_a_line() -> None:
    assert run_view.by_line("decide: `a b`, `c d`, or wait").splitlines() == ["decide: `a b`,", "      `c d`, or wait"]


def test_a_value_is_shortened_to_one_line() -> None:
    assert output.shorten({"a": [1, None]}) == '{"a":[1,null]}'
    assert output.shorten("one\n two") == "one two"
    assert output.shorten("x" * 9, 5) == "xxxx…"


def span(kind: str, name: str, start: int, end: int | None, **changes: Any) -> dict[str, Any]:
    """A span of some seconds of one minute."""
    row = {"kind": kind, "name": name, "started_at": at(start), "ended_at": None if end is None else at(end)}
    rest = {"state": "succeeded", "detail": "", "attempt": 1, "id": None, "cost_microusd": 0, "tokens": 0}
    return row | rest | {"depth": 0, "parent": None} | changes


def at(second: int) -> str:
    return f"2026-11-21T10:00:{second:02}Z"


def waterfall(*spans: dict[str, Any], total_seconds: int) -> dict[str, Any]:
    return {
        "started_at": at(0),
        "now": at(total_seconds),
        "total_us": total_seconds * 1_000_000,
        "spans": list(spans),
        "where_time_went": {"queue": 1_000_000, "model": (total_seconds - 1) * 1_000_000},
    }


def drawn(shown: Any, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, markup=False)
    with console.capture() as capture:
        console.print(shown)
    return capture.get().splitlines()


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_a_waterfall_fits_the_terminal_and_bars_lie_where_their_time_was(width: int) -> None:
    long = "a very long name of a step " * 5
    found = waterfall(
        span("attempt", "attempt 1", 0, 20, cost_microusd=1234),
        span("step", long, 0, 10, depth=1),
        span("tool", "\x1b[2J שלום", 10, 20, depth=1, state="failed", detail="ValueError: " + long),
        span("wait", "signal go", 20, None, state="waiting"),
        total_seconds=40,
    )

    lines = drawn(waterfall_view.bars(found, width), width)
    _, _, attempt, step, tool, wait = [line.rstrip() for line in lines]

    assert max(map(cell_len, lines)) <= width
    assert "\x1b" not in "".join(lines)
    assert step.index("█") == attempt.index("▬")
    assert abs(step.count("█") - tool.count("█")) <= 1
    assert tool.index("█") > step.rindex("█") - 2
    assert wait.endswith("▸")
    assert cell_len(wait) == cell_len(lines[1].rstrip())


def test_many_spans_are_cut_in_the_middle_unless_all_are_wanted() -> None:
    spans = [span("step", f"step {number}", 0, 1) for number in range(90)]
    found = waterfall(*spans, total_seconds=1)

    some, every = drawn(waterfall_view.bars(found, 100), 100), drawn(waterfall_view.bars(found, 100, most=None), 100)

    assert "… 30 more" in "\n".join(some)
    assert ("step 89 " in some[-1], len(every)) == (True, 92)


def test_a_moment_in_the_queue_is_not_worth_a_line_once_it_is_over() -> None:
    found = waterfall(
        span("queue", "queue", 0, 0), span("attempt", "attempt 1", 0, 30), span("queue", "queue", 30, None),
        total_seconds=31,
    )  # fmt: skip

    assert [line.split()[1] for line in drawn(waterfall_view.bars(found, 80), 80)[2:]] == ["attempt", "queue"]


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_any_table_fits_the_terminal(width: int) -> None:
    made = output.table("run", "account", ("limit", "right"), ("note", "fold"))
    made.add_row(RUN, "tenant:a-very-long-name-of-a-tenant", "1,000,000.0000", "[/bold] שלום \x1b[31m" * 9)

    lines = drawn(output.fitted(made, width, spare=("limit",)), width)

    assert max(map(cell_len, lines)) <= width
    assert "[/bold]" in "".join("".join(lines).split())


@pytest.mark.parametrize("width", [80, 200])
def test_a_frame_of_top_fits_the_terminal(width: int) -> None:
    worker = {
        "id": RUN, "state": "running", "is_live": False, "running": 3, "slots": {"normal": 8},
        "host": "a-host-with-a-very-long-name.example.com", "agents": ["invoice_classifier"] * 9,
    }  # fmt: skip
    run = {"id": RUN, "agent": "a" * 60, "lane": "critical", "attempt": 3, "started_at": at(0)}
    spent = {"period": "2026-11-21", "settled_microusd": 99, "reserved_microusd": 1, "limit_microusd": 100}
    lane = {"lane": "normal", "queued": 1_000_000, "running": 7, "waiting": 9, "oldest_age_seconds": 4000.0}
    found = {
        "state": "degraded", "reasons": ["breakers: it is open"], "now": at(9), "runs": {"queued": 1_000_000},
        "runs_per_second": 12.5, "lanes": [lane], "workers": [worker], "spending": [spent],
        "under_way": [run | {"progress_done": 3, "progress_total": None}], "has_more_dead": True, "blocked_runs": 1,
        "alerts": {"critical": 2, "warning": 0, "info": 1},
        "switches": ["agent:x"], "approvals": 2, "dead": 1000,
    }  # fmt: skip

    lines = drawn(top.frame(found, width, runs=None), width)

    assert max(map(cell_len, lines)) <= width
    for told in (
        "degraded",
        "it is open",
        "12.5 runs/s",
        "1,000+ dead",
        "alerts fire: 2 critical, 1 info",
        "agent:x",
        "silent",
        "100%",
        "66 min 40 s",
        "9.0 s",
    ):
        assert told in "\n".join(lines), told


def test_every_command_has_its_place_in_the_help() -> None:
    placed = [name for names in GROUPS.values() for name in names]

    assert sorted(placed) == sorted([*COMMANDS, *TREE])


STEP = {
    "key": "draft", "kind": "model", "state": "succeeded", "attempt": 1, "tries": 1, "error": None,
    "started_at": "2026-11-02T10:00:00Z", "finished_at": "2026-11-02T10:00:02Z",
    "request": '{"system":"Be kind.","messages":[{"role":"user","content":"Say \\u001b[31m it"}]}',
    "result": {"parts": [
        {"part_kind": "tool-call", "tool_name": "look", "args": {"q": "x"}},
        {"part_kind": "text", "content": "It " + "is " * 400 + "said."},
    ]},
}  # fmt: skip


def test_a_step_shows_who_said_what_whole_and_obeys_nothing_of_it() -> None:
    call = {
        "key": "draft", "model": "m", "route": "default", "outcome": "answered", "input_tokens": 7, "output_tokens": 5,
        "cache_read_tokens": 0, "cache_write_tokens": 0, "reasoning_tokens": 0, "latency_us": 5, "cost_microusd": 0,
        "reason": None, "message": None,
    }  # fmt: skip
    found = {"run": {"id": "r"}, "steps": [STEP], "model_calls": [call, call | {"key": "other"}], "tool_calls": []}
    file = io.StringIO()

    step = step_view.step_of(found, "draft")
    step_view.show_step(Console(file=file, width=80, highlight=False, markup=False), step)

    lines = [line.strip() for line in file.getvalue().splitlines()]
    headings = [line for line in lines if line in ("system", "user", "calls look", "answer")]
    assert headings == ["system", "user", "calls look", "answer"]
    assert ("Be kind." in lines, "\x1b" in file.getvalue(), file.getvalue().count("is ")) == (True, False, 400)
    assert (len(step["model_calls"]), lines[-1].endswith("said.")) == (1, True)
    assert max(len(line) for line in file.getvalue().splitlines()) <= 80
    with pytest.raises(NotFound, match="has no step 'x'; its steps: draft"):
        step_view.step_of(found, "x")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_agents_fit_the_terminal_and_say_what_is_wrong(width: int) -> None:
    row = {
        "name": "invoice_classifier", "description": "Sorts.", "runs": {"queued": 12_000, "running": 2, "waiting": 3},
        "ended_today": {"succeeded": 5, "failed": 7}, "success_share_today": 5 / 12, "cost_microusd_today": 1_234_567,
        "health": {"tone": "red", "word": "fails", "reasons": ["41.7% of its runs succeeded today", "it is slow"]},
    }  # fmt: skip

    lines = drawn(output.fitted(agent_view.agents_table([row]), width, spare=agent_view.SPARE), width)

    assert all(cell_len(line.rstrip()) <= width for line in lines)
    assert "invoice_classifier  fails" in "\n".join(lines)
    assert "41.7%" in "\n".join(lines)
