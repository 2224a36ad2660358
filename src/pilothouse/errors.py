"""Every error that Pilothouse raises, on one screen. A message says what happened, to which id, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class PilothouseError(Exception):
    """Root of the tree: catch it to catch everything that Pilothouse raises on purpose. `code` is for programs."""

    code = "failed"


class ConfigError(PilothouseError):
    """A setting, an App or an agent definition is wrong; found at start-up."""

    code = "config"


# --- the store ---------------------------------------------------------------------------------


class StoreError(PilothouseError):
    """The database refused or failed."""


class StoreUnavailable(StoreError):
    """The database is gone or unreachable for now; nothing was lost, try again."""

    code = "store_unavailable"

    def __init__(self, message: str, *, retry_after_seconds: float = 5.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class OutcomeUnknown(StoreUnavailable):
    """The database went away during a commit, and nobody can tell any more whether the change took place."""


class StoreFull(StoreUnavailable):
    """The disk under the database is full."""

    code = "store_full"


class StoreReadOnly(StoreError):
    """The database or its folder cannot be written."""

    code = "store_read_only"


class SchemaError(StoreError):
    """The database's schema or server does not fit this version of Pilothouse."""

    code = "schema_mismatch"


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


class SwitchedOff(Refused):
    """A kill switch in mode abort is tripped, and nothing of its scope is taken until it is reset."""

    code = "switched_off"


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


class EffectError(StepError, FatalError):
    """A call that changes the world failed, or may have happened after all; its run does not make it again by itself.

    `pilothouse effects show` tells what is known, `pilothouse dead redrive` lets the run try again.
    """


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


class ModelError(RunError):
    """A model gave no answer that could be used. `calls` are the records of what was asked."""

    def __init__(self, message: str, calls: Sequence[object] = ()) -> None:
        super().__init__(message)
        self.calls = tuple(calls)


class ModelUnavailable(ModelError):
    """No model of a route answers for now; `retry_after_seconds` says when one may. The run waits and asks again.

    `was_asked`: a request went out, and a record of it is to be kept.
    """

    def __init__(
        self, message: str, retry_after_seconds: float, calls: Sequence[object] = (), *, was_asked: bool = False
    ) -> None:
        super().__init__(message, calls)
        self.retry_after_seconds = retry_after_seconds
        self.was_asked = was_asked


class AnswerMalformed(ModelError):
    """What the models of a route answered was no answer, such as an empty one. The run's next attempt asks again."""


class ModelRefused(ModelError, FatalError):
    """No model of a route takes the request until somebody changes something: a key, a name, the request itself."""


class OutputInvalid(ModelError):
    """What a model said did not fit the wanted type, and asking it to repair that did not help."""


class PromptTooLong(FatalError):
    """A prompt holds more tokens than its route lets in."""

    def __init__(self, route: str, tokens: int, limit: int) -> None:
        super().__init__(
            f"the prompt has about {tokens:,} tokens, but route {route!r} lets in {limit:,} (max_input_tokens); "
            "shorten it, give the agent a context window, or raise the limit"
        )


class UnknownPrice(FatalError):
    """Nobody knows what a model costs, so it is not asked."""

    def __init__(self, model: str) -> None:
        super().__init__(
            f"no price is known for model {model!r}, so it is not asked; give it in pilothouse.toml, in dollars per "
            f'million tokens: [prices."{model}"] input_usd = 1.0, output_usd = 2.0 (0 for a model of your own)'
        )


@dataclass(frozen=True, slots=True)
class ReachedLimit:
    """A limit without room: whose (`account`, `period`), where it was set (`scope`), and its figures in `unit`.

    `is_contended`: what others have reserved may leave room once it is settled. `frees_at` is when the period ends, in
    microseconds (None: never), `epoch` the latest change of any limit that was known.
    """

    account: str
    scope: str
    period: str
    unit: str
    limit: int
    settled: int
    reserved: int
    wanted: int
    is_contended: bool
    frees_at: int | None
    epoch: int

    @property
    def free(self) -> int:
        return max(0, self.limit - self.settled - self.reserved)


class LimitReached(RunError):
    """A limit has no room for what a call may use; the run waits until there is some. `calls` as in ModelError."""

    def __init__(self, message: str, reached: ReachedLimit, calls: Sequence[object] = ()) -> None:
        super().__init__(message)
        self.reached = reached
        self.calls = tuple(calls)


class ToolError(RunError):
    """A tool does not exist, or its arguments do not fit."""


class RetryLater(RunError):
    """Raise it in a tool that was told to come back later, such as by a 429, and that is sure to have done nothing.

    The run is suspended for so many `seconds`, then the call is made again. It counts as no failure of the run.
    """

    def __init__(self, seconds: float, reason: str = "") -> None:
        super().__init__(reason or f"told to come back in {seconds:g} s")
        self.seconds = max(0.0, seconds)


class MayHaveHappened(RunError):
    """Raise it in a tool whose call may have taken place, such as one whose answer was lost; a time-out says the same.

    The effect is unknown until the tool's `verify` or a person has said.
    """


class Withheld(PilothouseError):
    """A call that was about to go out did not, for a kill switch. The engine lets it wait; agents never see this."""


class PolicyDenied(FatalError):
    """A policy does not let an action be done, whoever would approve it."""


class ApprovalIncomplete(RunError):
    """What an agent asks people to decide on lacks something; the message names it. Nobody was asked."""


class NotApproved(FatalError):
    """People were asked, and did not say yes. `approval_id` is what they were asked; `note` is what they said to it."""

    def __init__(self, message: str, *, approval_id: str = "", note: str = "", decided_by: str | None = None) -> None:
        super().__init__(message)
        self.approval_id, self.note, self.decided_by = approval_id, note, decided_by


class ApprovalRejected(NotApproved):
    """A person has said no, and why."""


class ApprovalExpired(NotApproved):
    """Nobody has decided before the deadline, which is not a no."""


class RevisionRequested(NotApproved):
    """A person wants it done otherwise; `note` says how. Ask again, under the same name, with what was changed."""


class IsolationError(RunError):
    """The process of an isolated attempt could not be started, or died before its handler returned."""


class LeaseLost(PilothouseError):
    """This worker's lease ended, or the attempt is no longer its own; its writes change nothing."""


class Suspend(BaseException):
    """Unwinds a handler that waits. A BaseException, so that an agent's own `except Exception` cannot eat it."""


class Stopped(BaseException):
    """Unwinds a handler whose attempt was cancelled, timed out or drained."""
