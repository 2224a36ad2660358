"""Files and functions stay small enough to be read at once, and only the command line prints."""

from __future__ import annotations

import ast

from tests.architecture.source_tree import name_of, noun_of, source_files, tree_of

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60


def test_a_file_has_at_most_500_lines() -> None:
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in source_files()}

    too_long = {name: lines for name, lines in lengths.items() if lines > MAX_FILE_LINES}

    assert lengths
    assert not too_long, f"find the second noun: {too_long}"


def test_a_function_has_at_most_60_lines() -> None:
    too_long = [
        f"{name_of(path)}:{node.lineno} {node.name}"
        for path in source_files()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _length(node) > MAX_FUNCTION_LINES
    ]

    assert not too_long, f"two ideas in one function, find the second name: {too_long}"


def test_only_the_command_line_prints() -> None:
    prints = [
        f"{name_of(path)}:{node.lineno}"
        for path in source_files()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        if noun_of(path) != "cli"
    ]

    assert not prints, f"emit an event or return it: {prints}"


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1
