"""Processes that must not outlive the one that started them, nor leave children of their own behind."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Where the kernel offers it, a process does not outlive the one that forked it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def kill_group(process_id: int) -> None:
    """The process and all that it has forked, as far as they stay in its group."""
    for kill in (os.killpg, os.kill):
        try:
            kill(process_id, signal.SIGKILL)
        except ProcessLookupError:
            continue
