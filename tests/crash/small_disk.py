"""A disk that is full when a test wants it to be: a small file system in memory, mounted for the test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BLOCK = 4096


@contextmanager
def small_disk(folder: Path, *, mebibytes: int) -> Iterator[Path]:
    """Skips, loudly, where nothing can be mounted; CI as root must mount it."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=0755", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        _give_up(str(error))
    if done.returncode != 0:
        _give_up(done.stderr.strip())
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _give_up(reason: str) -> None:
    if os.environ.get("CI") and os.geteuid() == 0:
        pytest.fail(f"CI as root must test on a full disk: {reason}")
    pytest.skip(f"NOT TESTED on a full disk, which needs root to mount one: {reason}")


def fill(folder: Path) -> Path:
    """Takes all that is free; remove the file to give it back."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        while _writes(file.write, b"\0" * BLOCK):
            pass
    return filler


def _writes(write: object, data: bytes) -> bool:
    assert callable(write)
    try:
        return bool(write(data) == len(data))
    except OSError:
        return False
