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
    from pilothouse.domain.policies import Facts as Facts
    from pilothouse.domain.policies import Proposal as Proposal
    from pilothouse.domain.policies import Verdict as Verdict
    from pilothouse.domain.retries import Backoff as Backoff
    from pilothouse.domain.retries import RetryPolicy as RetryPolicy
    from pilothouse.domain.windows import Window as Window
    from pilothouse.engine.approvals import Approved as Approved
    from pilothouse.engine.context import Child as Child
    from pilothouse.engine.context import Context as Context
    from pilothouse.engine.sync import SyncContext as SyncContext
    from pilothouse.engine.tools import Secret as Secret
    from pilothouse.errors import ApprovalExpired as ApprovalExpired
    from pilothouse.errors import ApprovalIncomplete as ApprovalIncomplete
    from pilothouse.errors import ApprovalRejected as ApprovalRejected
    from pilothouse.errors import ChildError as ChildError
    from pilothouse.errors import FatalError as FatalError
    from pilothouse.errors import MayHaveHappened as MayHaveHappened
    from pilothouse.errors import PilothouseError as PilothouseError
    from pilothouse.errors import PolicyDenied as PolicyDenied
    from pilothouse.errors import RetryLater as RetryLater
    from pilothouse.errors import RevisionRequested as RevisionRequested
    from pilothouse.errors import StepError as StepError
    from pilothouse.errors import WaitTimeout as WaitTimeout

_HOMES = {
    "App": "app",
    "ApprovalExpired": "errors",
    "ApprovalIncomplete": "errors",
    "ApprovalRejected": "errors",
    "Approved": "engine.approvals",
    "AsyncClient": "client",
    "Backoff": "domain.retries",
    "Cancel": "domain.outcomes",
    "Child": "engine.context",
    "ChildError": "errors",
    "Client": "client",
    "Context": "engine.context",
    "Facts": "domain.policies",
    "Fatal": "domain.outcomes",
    "FatalError": "errors",
    "MayHaveHappened": "errors",
    "PilothouseError": "errors",
    "PolicyDenied": "errors",
    "Proposal": "domain.policies",
    "Retry": "domain.outcomes",
    "RetryLater": "errors",
    "RetryPolicy": "domain.retries",
    "RevisionRequested": "errors",
    "Secret": "engine.tools",
    "Snooze": "domain.outcomes",
    "StepError": "errors",
    "SyncContext": "engine.sync",
    "Verdict": "domain.policies",
    "WaitTimeout": "errors",
    "Window": "domain.windows",
}
"""Public names and the modules they live in; each is imported when it is first asked for, so the CLI starts fast."""

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'pilothouse' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"pilothouse.{_HOMES[name]}"), name)
