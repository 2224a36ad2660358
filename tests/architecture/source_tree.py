"""What the architecture tests see of the source: its modules, their syntax trees, their imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "pilothouse"


def source_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def name_of(path: Path) -> str:
    """For messages: the path from the root of the repository."""
    return str(path.relative_to(ROOT))


def noun_of(path: Path) -> str:
    """The top-level package or module a file belongs to: `store`, `errors`, `__init__`."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_names(path: Path) -> Iterator[str]:
    """Every module named by an import, at any depth: `sqlite3`, `pilothouse.store.database`, `pilothouse.App`."""
    for node in ast.walk(tree_of(path)):
        match node:
            case ast.Import(names=aliases):
                yield from (alias.name for alias in aliases)
            case ast.ImportFrom(module="pilothouse", names=aliases):
                yield from (f"pilothouse.{alias.name}" for alias in aliases)
            case ast.ImportFrom(module=str(module), level=0):
                yield module
            case ast.ImportFrom():
                raise AssertionError(f"{name_of(path)}:{node.lineno}: relative import; name the module in full")


def imported_nouns(path: Path) -> set[str]:
    """Our own top-level nouns that a file imports; a public name of `pilothouse` counts as `__init__`."""
    names = set(imported_names(path)) - {"pilothouse.__version__"}
    return {_noun(name) for name in names if name.split(".")[0] == "pilothouse"}


def _noun(name: str) -> str:
    noun = name.removeprefix("pilothouse").strip(".").split(".")[0]
    is_module = (PACKAGE / noun).is_dir() or (PACKAGE / f"{noun}.py").is_file()
    return noun if noun and is_module else "__init__"
