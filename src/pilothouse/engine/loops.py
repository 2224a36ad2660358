"""The event loop of a long-lived process: libuv's where it can be had, which halves what asyncio costs a run."""

from __future__ import annotations

import asyncio
import gc

GARBAGE_THRESHOLD = 10_000
"""Objects after which Python looks for cycles among the young ones. At its default of 700 a worker looks twice in the
turn of one transaction, at what is about to go away by itself; that is a tenth of what a run costs."""


def calm_collector() -> None:
    """For a process that has imported what it needs: none of that will be garbage, and what comes later is looked at
    less often.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)


def new_runner() -> asyncio.Runner:
    """A runner like that of `asyncio.run`."""
    try:
        import uvloop
    except ImportError:  # Windows, and Pythons other than CPython
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)
