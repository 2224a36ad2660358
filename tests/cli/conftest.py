"""The command as a process, in a folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

WAIT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Said:
    """What a command has said and how it exited."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Shell:
    """Runs `pilothouse` in one folder, as a user would type it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *arguments: str, stdin: str = "", **environment: str) -> Said:
        done = subprocess.run(
            [sys.executable, "-m", "pilothouse", *arguments],
            cwd=self.folder,
            env=self._environment(environment),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Said(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "pilothouse", *arguments],
            cwd=self.folder,
            env=self._environment(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path

    @staticmethod
    def _environment(changes: dict[str, str]) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PILOTHOUSE_", "DATABASE_"))}
        return {**kept, "NO_COLOR": "1", **changes}


def until(look: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not look():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A starter project with `pilothouse up` running in it."""
    folder = tmp_path_factory.mktemp("project")
    assert Shell(folder)("init", "mine").code == 0
    shell = Shell(folder / "mine")
    source = (shell.folder / "agents.py").read_text("utf-8")
    shell.write("agents.py", source + MORE_AGENTS)
    process = shell.start("up", "--port", "0")
    try:
        until(lambda: shell("agents", "list").code == 0 and len(shell("agents", "list", "--json").json) == 3, "up")
        yield shell
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=WAIT_SECONDS)
        assert process.returncode == 0, said


MORE_AGENTS = """

@app.agent(max_attempts=1)
async def broken(ctx: Context) -> None:
    await ctx.step("bad step", fail)


def fail() -> None:
    raise ValueError("it cannot be done")


@app.agent
async def waits(ctx: Context) -> object:
    ctx.log("waiting now", reason="test")
    return await ctx.wait_for("go")
"""
