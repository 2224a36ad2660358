"""Pilothouse runs AI agents durably, from one SQLite file to many processes on PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pilothouse.app import App as App
    from pilothouse.client import AsyncClient as AsyncClient
    from pilothouse.client import Client as Client
    from pilothouse.domain.outcomes import Cancel as Cancel
    from pilothouse.domain.outcomes import Fatal as Fatal
    from pilothouse.domain.outcomes import Retry as Retry
    from pilothouse.domain.outcomes import Snooze as Snooze
    from pilothouse.domain.retries import Backoff as Backoff
    from pilothouse.domain.retries import RetryPolicy as RetryPolicy
    from pilothouse.engine.context import Child as Child
    from pilothouse.engine.context import Context as Context
    from pilothouse.engine.sync import SyncContext as SyncContext
    from pilothouse.errors import ChildError as ChildError
    from pilothouse.errors import FatalError as FatalError
    from pilothouse.errors import PilothouseError as PilothouseError
    from pilothouse.errors import StepError as StepError
    from pilothouse.errors import WaitTimeout as WaitTimeout

_HOMES = {
    "App": "app",
    "AsyncClient": "client",
    "Backoff": "domain.retries",
    "Cancel": "domain.outcomes",
    "Child": "engine.context",
    "ChildError": "errors",
    "Client": "client",
    "Context": "engine.context",
    "Fatal": "domain.outcomes",
    "FatalError": "errors",
    "PilothouseError": "errors",
    "Retry": "domain.outcomes",
    "RetryPolicy": "domain.retries",
    "Snooze": "domain.outcomes",
    "StepError": "errors",
    "SyncContext": "engine.sync",
    "WaitTimeout": "errors",
}
"""Public names and the modules they live in; each is imported when it is first asked for, so the CLI starts fast."""

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'pilothouse' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"pilothouse.{_HOMES[name]}"), name)
