"""The command as a process, in a folder of its own."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

from tests.patience import WAIT_SECONDS

STYLES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


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
            env=self.environment(environment),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Said(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "pilothouse", *arguments],
            cwd=self.folder,
            env=self.environment(environment),
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
    def environment(changes: dict[str, str]) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PILOTHOUSE_", "DATABASE_"))}
        return {**kept, "NO_COLOR": "1", **changes}


class Terminal:
    """A command on a terminal of its own. Its output goes to `seen`, as it comes."""

    def __init__(self, shell: Shell, *arguments: str, columns: int = 100) -> None:
        self.seen = ""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pilothouse", *arguments],
            cwd=shell.folder,
            env=shell.environment({"TERM": "xterm-256color"}),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def until(self, wanted: str) -> None:
        """Reads until the pattern has been seen."""
        until(lambda: self._read() and bool(re.search(wanted, self.seen)), f"{wanted!r} on the terminal")

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def press_ctrl_c(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def wait(self) -> int:
        while self._process.poll() is None:
            self._read()
        self._read()
        return self._process.returncode

    def _read(self) -> bool:
        while select.select([self._master], [], [], 0.05)[0]:
            try:
                self.seen += STYLES.sub("", os.read(self._master, 65536).decode(errors="replace"))
            except OSError:  # Linux: the command has closed its side
                return True
        return True


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
        until(lambda: shell("agents", "list").code == 0 and len(shell("agents", "list", "--json").json) == 4, "up")
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


app.schedule("yearly", agent="hello", cron="0 0 1 1 *", timezone="Europe/Paris", input={"name": "Ada"})
"""
