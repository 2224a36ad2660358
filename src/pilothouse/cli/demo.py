"""`demo`: the main job end to end, with a crash in the middle."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pilothouse.cli.output import AsJson, print_json
from pilothouse.examples.demo import run_demo


def demo(
    *,
    path: Annotated[Path | None, Parameter(help="A folder of Python sources; the standard library otherwise.")] = None,
    files: Annotated[int | None, Parameter(help="Audit at most this many files.")] = None,
    keep: Annotated[bool, Parameter(negative="", help="Leave the platform up until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> int:
    """The code steward on real sources: API, scheduler and two workers, one of them killed midway."""
    figures = run_demo(path=path, files=files, keep=keep, as_json=as_json)
    if as_json:
        print_json(asdict(figures) | {"problems": figures.problems})
    return 1 if figures.problems else 0
