"""`demo`: what the platform promises, put to the test on real processes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from pilothouse.cli.output import AsJson, print_json
from pilothouse.examples.demo import Figures as DemoFigures
from pilothouse.examples.demo import run_demo
from pilothouse.examples.governance import run_governance


def demo(
    what: Annotated[
        Literal["recovery", "governance"], Parameter(help="A crash in the middle of work, or limits, people and stops.")
    ] = "recovery",
    *,
    path: Annotated[Path | None, Parameter(help="A folder of Python sources; the standard library otherwise.")] = None,
    files: Annotated[int | None, Parameter(help="Audit at most this many files.")] = None,
    keep: Annotated[bool, Parameter(negative="", help="Leave the platform up until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> int:
    """Recovery: the code steward on real sources, with one of two workers killed midway. Governance: 40 runs that try
    to break a budget, a refund that a person decides on, a kill switch, and a crash between intent and result.
    """
    is_governance = what == "governance"
    figures = run_governance(keep=keep, as_json=as_json) if is_governance else _recover(path, files, keep, as_json)
    if as_json:
        print_json(asdict(figures) | {"problems": figures.problems})
    return 1 if figures.problems else 0


def _recover(path: Path | None, files: int | None, keep: bool, as_json: bool) -> DemoFigures:
    return run_demo(path=path, files=files, keep=keep, as_json=as_json)
