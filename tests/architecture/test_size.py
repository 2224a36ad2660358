"""Files and functions stay small enough to be read at once, and only the command line prints."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.architecture.source_tree import name_of, noun_of, source_files, tree_of

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60


@pytest.mark.parametrize("path", source_files(), ids=name_of)
def test_a_file_has_at_most_500_lines(path: Path) -> None:
    lines = len(path.read_text().splitlines())

    assert lines <= MAX_FILE_LINES, f"{name_of(path)} has {lines} lines: find the second noun"


@pytest.mark.parametrize("path", source_files(), ids=name_of)
def test_a_function_has_at_most_60_lines(path: Path) -> None:
    functions = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]

    too_long = [
        f"{name_of(path)}:{node.lineno} {node.name}" for node in functions if _length(node) > MAX_FUNCTION_LINES
    ]

    assert not too_long, f"two ideas in one function, find the second name: {too_long}"


@pytest.mark.parametrize("path", source_files(), ids=name_of)
def test_only_the_command_line_prints(path: Path) -> None:
    calls = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]

    prints = [node.lineno for node in calls if isinstance(node.func, ast.Name) and node.func.id == "print"]

    assert not prints or noun_of(path) == "cli", f"{name_of(path)} prints in lines {prints}; emit an event or return it"


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1
