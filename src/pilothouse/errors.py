"""Every error that Pilothouse raises, on one screen. A message says what happened, to which id, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class PilothouseError(Exception):
    """Root of the tree: catch it to catch everything that Pilothouse raises on purpose."""


class ConfigError(PilothouseError):
    """A setting, an App or an agent definition is wrong; found at start-up."""


# --- the store ---------------------------------------------------------------------------------


class StoreError(PilothouseError):
    """The database refused or failed."""


class StoreUnavailable(StoreError):
    """The database is gone or unreachable for now; nothing was lost, try again."""

    def __init__(self, message: str, *, retry_after_seconds: float = 5.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class OutcomeUnknown(StoreUnavailable):
    """The database went away during a commit, and nobody can tell any more whether the change took place."""


class StoreFull(StoreUnavailable):
    """The disk under the database is full."""


class StoreReadOnly(StoreError):
    """The database or its folder cannot be written."""


class SchemaError(StoreError):
    """The database's schema or server does not fit this version of Pilothouse."""


# --- requests that are refused -----------------------------------------------------------------


class Refused(PilothouseError):
    """A request that is answered with a reason instead of an effect."""

    code = "refused"


class NotFound(Refused):
    """The named thing does not exist."""

    code = "not_found"


class Conflict(Refused):
    """The thing exists, but its state or content does not allow the request."""

    code = "conflict"


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field of a refused input: where it is, what is wrong with it."""

    field: str
    message: str


class InvalidInput(Refused):
    """Input that does not fit; `fields` names each place."""

    code = "invalid_input"

    def __init__(self, message: str, fields: Sequence[FieldError] = ()) -> None:
        super().__init__(message)
        self.fields = tuple(fields)


class Forbidden(Refused):
    """The caller's API key does not allow it."""

    code = "forbidden"


class TryLater(Refused):
    """Too much at once; nothing was stored. `retry_after_seconds` says when to try again."""

    def __init__(self, message: str, *, retry_after_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class QueueFull(TryLater):
    """The queue of a lane or of a tenant is full."""

    code = "queue_full"


class RateLimited(TryLater):
    """The caller makes more requests than its rate limit allows."""

    code = "rate_limited"


# --- inside a run ------------------------------------------------------------------------------


class RunError(PilothouseError):
    """Something that went wrong inside a run. `step` is the key of the operation it came from, if any."""

    step: str | None = None


class FatalError(RunError):
    """Raise it in an agent to fail the run at once, without further attempts."""


class StepError(RunError):
    """A step failed for good. `error_type` is the type of the original error (see `__cause__`)."""

    def __init__(self, step: str, error_type: str, message: str) -> None:
        super().__init__(f"step {step!r} failed: {error_type}: {message}")
        self.step, self.error_type, self.message = step, error_type, message


class ChildError(RunError):
    """A child run failed or was cancelled. `run_id` is the child, `state` how it ended."""

    def __init__(self, step: str, run_id: str, state: str, message: str) -> None:
        super().__init__(message if message.startswith("child run") else f"child run {run_id} {state}: {message}")
        self.step, self.run_id, self.state = step, run_id, state


class WaitTimeout(RunError):
    """`wait_for` gave up: the signal did not come in time."""

    def __init__(self, step: str, message: str) -> None:
        super().__init__(message)
        self.step = step


class DuplicateStep(FatalError):
    """Two steps of one run bear the same name, so that their checkpoints could not be told apart."""

    def __init__(self, step: str, message: str) -> None:
        super().__init__(message)
        self.step = step


class DivergenceError(FatalError):
    """On replay the code asked for something else than what its checkpoint answers."""

    def __init__(self, step: str, message: str) -> None:
        super().__init__(message)
        self.step = step


class ResultError(FatalError):
    """A handler or a step returned something that cannot be stored as JSON."""


class AttemptTimeout(RunError):
    """The attempt ran longer than its agent allows."""


class RunTimeout(FatalError):
    """The run passed its deadline."""


class StateMigrationError(FatalError):
    """A migration of an agent's state failed on the results of an older version."""

    def __init__(self, agent: str, version: int, cause: Exception) -> None:
        super().__init__(
            f"the results of an older version of agent {agent!r} could not be brought to state version {version}: "
            f"{type(cause).__name__}: {cause}; mend the migration, then redrive the run"
        )
        self.__cause__ = cause


class IsolationError(RunError):
    """The process of an isolated attempt could not be started, or died before its handler returned."""


class LeaseLost(PilothouseError):
    """This worker's lease ended, or the attempt is no longer its own; its writes change nothing."""


class Suspend(BaseException):
    """Unwinds a handler that waits. A BaseException, so that an agent's own `except Exception` cannot eat it."""


class Stopped(BaseException):
    """Unwinds a handler whose attempt was cancelled, timed out or drained."""
