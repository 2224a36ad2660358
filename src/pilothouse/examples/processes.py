"""The processes of a demo on one SQLite file: API with scheduler, workers, and what is seen of them from outside."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pilothouse.config import child_environment
from pilothouse.control import checks, workers
from pilothouse.errors import PilothouseError
from pilothouse.store.database import Database, Row, open_database
from pilothouse.store.migrations import migrate

T = TypeVar("T")

LEASE_SECONDS = 2.0
RENEW_SECONDS = 0.4
START_SECONDS = 20.0
STOP_SECONDS = 20.0
LOOK_SECONDS = 0.05


class Processes:
    """Processes of an App in a folder; each writes its log there."""

    def __init__(self, folder: Path, app: str, **settings: str) -> None:
        self.folder = folder
        self._app = app
        self._settings = settings
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.database_url = f"sqlite:///{folder / 'pilothouse.db'}"
        self.db: Database = open_database(self.database_url)
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._killed: set[str] = set()

    def open(self) -> None:
        self.db.start()
        migrate(self.db)

    def close(self) -> None:
        self.stop()
        self.db.close()

    def start(self, name: str, *arguments: str) -> None:
        environment = child_environment(
            DATABASE_URL=self.database_url,
            PILOTHOUSE_APP=self._app,
            PILOTHOUSE_LEASE_SECONDS=str(LEASE_SECONDS),
            AGENT_HEARTBEAT_INTERVAL=str(RENEW_SECONDS),
            PILOTHOUSE_CHORE_INTERVAL_MS="250",
            LOG_LEVEL="debug",
            LOG_FORMAT="json",
            LOG_DESTINATION=f"file:{self.folder / name}.log",
            **self._settings,
        )
        with (self.folder / f"{name}.out").open("wb") as output:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", "pilothouse", *arguments],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def live_workers(self) -> list[Row]:
        rows = asyncio.run(workers.list_workers(self.db))
        return [row for row in rows if row["state"] in ("running", "draining")]

    def until(self, look: Callable[[], T | None], what: str, *, seconds: float) -> T:
        """What `look` finds. Raises PilothouseError where it finds nothing in time, or a process has ended."""
        deadline = time.monotonic() + seconds
        while (found := look()) is None:
            self.raise_if_ended()
            if time.monotonic() > deadline:
                raise PilothouseError(f"{what} did not come within {seconds:.0f} s; the logs are in {self.folder}")
            time.sleep(LOOK_SECONDS)
        return found

    def until_workers(self, count: int) -> None:
        own = {process.pid for process in self.running.values()}

        def look() -> bool | None:
            return sum(1 for row in self.live_workers() if row["pid"] in own) >= count or None

        self.until(look, f"{count} workers", seconds=START_SECONDS)

    def raise_if_ended(self) -> None:
        for name, process in self.running.items():
            if process.poll() is not None and name not in self._killed:
                said = (self.folder / f"{name}.out").read_text(errors="replace").strip()
                raise PilothouseError(f"{name} ended with code {process.returncode}: {said[-500:]}")

    def expect_death(self, name: str) -> None:
        """It will kill itself, or be killed; its exit is no fault."""
        self._killed.add(name)

    def kill(self, name: str) -> None:
        """SIGKILL."""
        self.expect_death(name)
        os.kill(self.running[name].pid, signal.SIGKILL)
        self.running[name].wait()

    def check(self) -> list[checks.Verdict]:
        return asyncio.run(checks.check(self.db, grace_us=int(LEASE_SECONDS * 2_000_000)))

    def stop(self) -> int:
        """SIGTERM to what still runs; how many did not exit with 0."""
        unclean = 0
        for process in self.running.values():
            if process.poll() is None:
                process.terminate()
        for name, process in self.running.items():
            try:
                code = process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
            unclean += code != 0 and name not in self._killed
        return unclean


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_interrupt() -> None:
    try:
        signal.pause()
    except KeyboardInterrupt:
        return
