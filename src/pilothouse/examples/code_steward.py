"""The code steward: audits a folder of Python sources, one child run per file, and writes a report."""

from __future__ import annotations

import ast
import hashlib
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pilothouse import App, Context

app = App("code-steward")

RISKY_CALLS = frozenset({"eval", "exec", "compile", "__import__", "system", "popen", "loads", "load"})
COMPLEX_FUNCTION = 15
BRANCHES = (
    ast.If,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.ExceptHandler,
    ast.With,
    ast.AsyncWith,
    ast.IfExp,
    ast.comprehension,
)
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Audit:
    """What one child run finds out about its file."""

    path: str
    sha256: str
    lines: int
    functions: int
    longest: str
    longest_lines: int
    undocumented: int
    complex_functions: list[str]
    risky: list[str]


@dataclass(frozen=True)
class Report:
    """Where the steward wrote its report, and the sums in it."""

    report: str
    files: int
    lines: int
    functions: int


@app.agent(run_timeout_seconds=3600)
async def steward(ctx: Context, path: str, report: str, limit: int | None = None) -> Report:
    """Audits every Python source directly below `path` and writes a Markdown report to `report`."""
    files = await ctx.step("list files", list_files, path, limit)
    ctx.log("files found", files=len(files))
    children = await ctx.start_many("audit files", "audit_file", [{"path": file} for file in files], lane="low")
    audits = [Audit(**audit) for audit in await ctx.results("collect audits", children)]
    ctx.progress(len(audits), len(files))
    return await ctx.step("write report", write_report, path, report, audits)


@app.agent(lane="low", timeout_seconds=120)
async def audit_file(ctx: Context, path: str) -> Audit:
    """Audits one Python source, a step at a time."""
    source = await ctx.step("read and hash", read_and_hash, path)
    lines = await ctx.step("parse", parse, path, source.sha256)
    functions = await ctx.step("measure functions", measure_functions, path, source.sha256)
    return Audit(
        path=path,
        sha256=source.sha256,
        lines=lines,
        functions=functions.count,
        longest=functions.longest,
        longest_lines=functions.longest_lines,
        undocumented=await ctx.step("docstrings", count_undocumented, path, source.sha256),
        complex_functions=await ctx.step("complexity", find_complex, path, source.sha256),
        risky=await ctx.step("risky constructs", find_risky, path, source.sha256),
    )


@dataclass(frozen=True)
class Source:
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Functions:
    count: int
    longest: str
    longest_lines: int


def list_files(path: str, limit: int | None) -> list[str]:
    """The Python sources directly below a folder, in the order of their names."""
    folder = Path(path)
    if not folder.is_dir():
        raise NotADirectoryError(f"{path} is not a folder")
    return [str(file) for file in sorted(folder.glob("*.py"))][:limit]


def read_and_hash(path: str) -> Source:
    data = Path(path).read_bytes()
    return Source(hashlib.sha256(data).hexdigest(), len(data))


def parse(path: str, sha256: str) -> int:
    """The number of lines of a source that parses."""
    tree = _tree(path, sha256)
    return max((node.end_lineno or 0 for node in tree.body), default=0)


def measure_functions(path: str, sha256: str) -> Functions:
    functions = list(_functions(_tree(path, sha256)))
    longest = max(functions, key=_length, default=None)
    return Functions(
        count=len(functions),
        longest=longest.name if longest else "",
        longest_lines=_length(longest) if longest else 0,
    )


def count_undocumented(path: str, sha256: str) -> int:
    """How many public functions have no docstring."""
    public = (function for function in _functions(_tree(path, sha256)) if not function.name.startswith("_"))
    return sum(1 for function in public if ast.get_docstring(function) is None)


def find_complex(path: str, sha256: str) -> list[str]:
    """The functions with more branches than a reader can hold in mind."""
    found = ((function.name, _branches(function)) for function in _functions(_tree(path, sha256)))
    return [f"{name} ({branches} branches)" for name, branches in found if branches > COMPLEX_FUNCTION]


def find_risky(path: str, sha256: str) -> list[str]:
    """Calls that run code or load objects from data, and handlers that catch everything."""
    found = []
    for node in ast.walk(_tree(path, sha256)):
        if isinstance(node, ast.Call) and _called(node) in RISKY_CALLS:
            found.append(f"line {node.lineno}: {_called(node)}()")
        elif isinstance(node, ast.ExceptHandler) and node.type is None:
            found.append(f"line {node.lineno}: bare except")
    return found


def write_report(path: str, report: str, audits: list[Audit]) -> Report:
    """Writes the report and returns its sums. Writing it twice gives the same file."""
    target = Path(report)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("\n".join(_report_lines(path, audits)) + "\n", encoding="utf-8")
    return Report(
        report=str(target),
        files=len(audits),
        lines=sum(audit.lines for audit in audits),
        functions=sum(audit.functions for audit in audits),
    )


def _report_lines(path: str, audits: list[Audit]) -> Iterator[str]:
    yield f"# Code audit of {path}"
    yield ""
    yield f"{len(audits)} files, {sum(audit.lines for audit in audits):,} lines, "
    yield f"{sum(audit.functions for audit in audits):,} functions."
    yield ""
    yield "| file | lines | functions | longest | undocumented | complex | risky |"
    yield "| --- | ---: | ---: | --- | ---: | ---: | ---: |"
    for audit in sorted(audits, key=lambda audit: -len(audit.complex_functions)):
        longest = f"{audit.longest} ({audit.longest_lines} lines)" if audit.functions else "none"
        yield (
            f"| {Path(audit.path).name} | {audit.lines} | {audit.functions} | {longest} "
            f"| {audit.undocumented} | {len(audit.complex_functions)} | {len(audit.risky)} |"
        )
    yield ""
    yield "## Functions with too many branches"
    yield ""
    for audit in audits:
        for function in audit.complex_functions:
            yield f"- {Path(audit.path).name}: {function}"
    yield ""
    yield "## Risky constructs"
    yield ""
    for audit in audits:
        for place in audit.risky:
            yield f"- {Path(audit.path).name}, {place}"


@lru_cache(maxsize=32)
def _tree(path: str, sha256: str) -> ast.Module:
    """The parsed file, kept while its steps run one after the other; the hash guards against a change in between."""
    data = Path(path).read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise RuntimeError(f"{path} changed while it was audited")
    with tokenize.open(path) as file:
        return ast.parse(file.read(), path)


def _functions(tree: ast.Module) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def _length(function: Function) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def _branches(function: Function) -> int:
    nodes = list(ast.walk(function))
    operators = sum(len(node.values) - 1 for node in nodes if isinstance(node, ast.BoolOp))
    return 1 + operators + sum(1 for node in nodes if isinstance(node, BRANCHES))


def _called(node: ast.Call) -> str:
    if isinstance(node.func, ast.Name):
        return node.func.id
    return node.func.attr if isinstance(node.func, ast.Attribute) else ""
