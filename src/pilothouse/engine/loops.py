"""The event loop of a long-lived process: libuv's where it can be had, which halves what asyncio costs a run."""

from __future__ import annotations

import asyncio


def new_runner() -> asyncio.Runner:
    """A runner like that of `asyncio.run`."""
    try:
        import uvloop
    except ImportError:  # Windows, and Pythons other than CPython
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)
