"""A real Redis server on a socket of its own, to be stopped and started at will."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.crash.processes import eventually


class RedisServer:
    """`start` it again after `stop`: the socket stays, what it knew is gone."""

    def __init__(self, folder: Path) -> None:
        self._program = _find()
        self._socket = folder / "redis.sock"
        self._log = folder / "redis.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    def start(self) -> None:
        options = ["--port", "0", "--unixsocket", str(self._socket), "--save", "", "--logfile", str(self._log)]
        self._process = subprocess.Popen([self._program, *options], stdout=subprocess.DEVNULL)
        eventually(self._socket.exists, "Redis to listen")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._socket.unlink()


def _find() -> str:
    program = shutil.which("redis-server")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("CI must test on Redis: there is no redis-server")
        pytest.skip("NOT TESTED on Redis: install Debian's package redis-server")
    return program
