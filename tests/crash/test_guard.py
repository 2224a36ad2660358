"""What a test run that is killed leaves behind: nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.postgres_server import ROOT, running_process_id
from tests.store.waiting import wait_until

PROGRAM = """
import sys
from tests.postgres_server import create_server, open_run_directory

directory, _ = open_run_directory()
print(directory, create_server(directory).data, flush=True)
sys.stdin.read()
"""


def test_a_server_ends_with_the_test_run_that_was_killed() -> None:
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        directory, data = map(Path, run.stdout.readline().split())
        assert running_process_id(data) is not None

        run.kill()

    wait_until(lambda: not directory.exists())
    assert running_process_id(data) is None
