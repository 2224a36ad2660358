"""A workflow's text: read with the place of every key, so that whatever is wrong is told with line and column."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilothouse.errors import ConfigError

MAX_BYTES = 1_000_000
MAX_PARTS = 50_000
"""Values in one file, those behind aliases counted each time: a file of a few lines can hold billions of them."""

MAX_DEPTH = 40

Location = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong, where, and what may have been meant."""

    message: str
    location: Location
    is_key: bool = False


class WorkflowError(ConfigError):
    """A workflow that cannot run; the message has a line per problem."""


class Source:
    """A file's content and where each part of it stands."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.text = text
        self.tree = _load(path, text)

    def place(self, location: Location, *, is_key: bool = False) -> tuple[int, int]:
        """Line and column, from 1, of the deepest part of `location` that exists."""
        here: Any = self.tree
        line, column = 1, 1
        for key in location:
            found = _position(here, key, is_key=is_key)
            if found is None:
                break
            line, column = found
            here = here[key]
        return line, column

    def error(self, problems: Iterable[Problem]) -> WorkflowError:
        """All problems as one error, in the order of the file."""
        lines = sorted({(*self.place(each.location, is_key=each.is_key), each.message) for each in problems})
        return WorkflowError("\n".join(f"{self.path}:{line}:{column}: {message}" for line, column, message in lines))


def read_source(path: Path) -> Source:
    """Raises WorkflowError for a file that cannot be read, is no YAML, or holds too much."""
    try:
        content = path.read_bytes()
        if len(content) > MAX_BYTES:
            raise WorkflowError(f"{path}: it has {len(content):,} bytes; a workflow has at most {MAX_BYTES:,}")
        return Source(path, content.decode())
    except OSError as error:
        raise WorkflowError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise WorkflowError(f"{path}: it is not UTF-8: {error}") from error


def _load(path: Path, text: str) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        tree = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        told = ", ".join(part for part in (error.context, error.problem) if part)
        raise WorkflowError(f"{path}:{line}:{column}: {told}") from error
    except (YAMLError, ValueError, RecursionError) as error:
        raise WorkflowError(f"{path}: it is no YAML: {error}") from error
    if not isinstance(tree, dict):
        raise WorkflowError(f"{path}:1:1: a workflow is a mapping with name, nodes and edges")
    _refuse_bombs(path, tree)
    return tree


def _refuse_bombs(path: Path, tree: Any) -> None:
    left, waiting = MAX_PARTS, [(tree, 0)]
    while waiting:
        part, depth = waiting.pop()
        inside = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
        left -= 1
        if left < 0 or depth > MAX_DEPTH:
            raise WorkflowError(
                f"{path}: it unfolds to over {MAX_PARTS:,} values or {MAX_DEPTH} levels; take out its aliases (*name)"
            )
        waiting.extend((item, depth + 1) for item in inside)


def _position(part: Any, key: str | int, *, is_key: bool) -> tuple[int, int] | None:
    marks = getattr(part, "lc", None)
    if marks is None or marks.data is None or key not in marks.data:
        return None
    mark = marks.data[key]
    line, column = (mark[0], mark[1]) if is_key or len(mark) < 4 else (mark[2], mark[3])
    return line + 1, column + 1


def suggestion(name: str, known: Collection[str]) -> str:
    """`; did you mean 'x'?`, or what there is."""
    close = difflib.get_close_matches(name, list(known), n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there is {', '.join(sorted(known))}" if known else ""


def plain(part: Any) -> Any:
    """Ordinary dicts, lists and scalars of what the YAML library has read."""
    match part:
        case dict():
            return {str(key) if not isinstance(key, str) else key: plain(value) for key, value in part.items()}
        case list():
            return [plain(item) for item in part]
        case bool() | None:
            return part
        case int():
            return int(part)
        case float():
            return float(part)
        case str():
            return str(part)
        case _:
            return str(part)
