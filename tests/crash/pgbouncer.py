"""A real PgBouncer in transaction mode: a few connections to the server serve all, each transaction on any of them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.crash.processes import eventually
from tests.postgres_server import UNPRIVILEGED_USER, free_port

FOLDERS = f"{os.environ.get('PATH', '')}:/usr/sbin"
SERVER_CONNECTIONS = 4
SETTINGS = """[databases]
* = host={host} port={port} user={user}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {connections}
"""


class PgBouncerUnavailable(Exception):
    """There is no PgBouncer on this machine; the message says how to get it."""


@contextmanager
def pooled(database_url: str, folder: Path) -> Iterator[str]:
    """The URL under which a PgBouncer before the database answers."""
    program = shutil.which("pgbouncer", path=FOLDERS)
    if program is None:
        raise PgBouncerUnavailable("no pgbouncer found: install Debian's package pgbouncer")
    server, listen_port = urlsplit(database_url), free_port()
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        SETTINGS.format(
            host=server.hostname,
            port=server.port,
            user=server.username,
            listen_port=listen_port,
            connections=SERVER_CONNECTIONS,
        )
    )
    with (folder / "pgbouncer.log").open("ab") as log, _started(program, settings, log.fileno()):
        eventually(lambda: _answers(listen_port), "PgBouncer to listen")
        yield server._replace(netloc=f"{server.username}@127.0.0.1:{listen_port}", query="pgbouncer=true").geturl()


@contextmanager
def _started(program: str, settings: Path, log: int) -> Iterator[None]:
    as_user = ["-u", UNPRIVILEGED_USER] if os.geteuid() == 0 else []  # it refuses to run as root
    process = subprocess.Popen(
        [program, *as_user, str(settings)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
