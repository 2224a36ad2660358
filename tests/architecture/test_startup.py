"""The start-up budget, held without a stopwatch: what a command must not have imported by the time it ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROBE = """
import contextlib, io, sys
from pilothouse.cli.main import main

sys.argv = ["pilothouse", *sys.argv[1:]]
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    main()
sys.stdout.write("\\n".join(sorted({name.split(".")[0] for name in sys.modules})))
"""


def packages_imported_by(program: str, *arguments: str) -> set[str]:
    result = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


@pytest.mark.parametrize(
    ("command", "heavy"),
    [
        ("version", {"fastapi", "starlette", "uvicorn", "psycopg", "pydantic", "jsonschema_rs", "httpx2", "structlog"}),
        ("--help", {"fastapi", "starlette", "uvicorn", "psycopg", "jsonschema_rs"}),
    ],
)
def test_a_light_command_imports_nothing_heavy(command: str, heavy: set[str]) -> None:
    imported = packages_imported_by(PROBE, command)

    assert "pilothouse" in imported
    assert not imported & heavy


def test_the_public_names_import_no_server_and_no_driver() -> None:
    program = "import sys; from pilothouse import App, Context; print(*{name.split('.')[0] for name in sys.modules})"

    imported = packages_imported_by(program)

    assert not imported & {"fastapi", "uvicorn", "psycopg"}


MODEL_PACKAGES = {"agents", "anthropic", "genai_prices", "langgraph", "mcp", "openai", "pydantic_ai"}


@pytest.mark.parametrize(
    "module",
    [
        "pilothouse.web.server",
        "pilothouse.platform",
        "pilothouse.engine.worker",
        "pilothouse.llm.gateway",
        "pilothouse.testing",
        "pilothouse.tools",
    ],
)
def test_no_model_library_comes_with_a_server_or_a_worker(module: str) -> None:
    program = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"

    assert not packages_imported_by(program) & MODEL_PACKAGES
