"""How an error of agent code is stored: type, message, traceback and the step it came from."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping

from pilothouse import payloads
from pilothouse.errors import ChildError, MayHaveHappened, RunError, StepError

TRACEBACK_SHOWN = 16_384
"""How much of a traceback is kept, in characters, counted from its end: the end says where it broke."""

MESSAGE_SHOWN = 4_096


MAY_HAVE_HAPPENED = "may_have_happened"
"""The mark of an error after which nobody knows whether a call took place."""


def may_have_happened(error: BaseException) -> bool:
    return isinstance(error, TimeoutError | MayHaveHappened)


class DescribedError(RunError):
    """An error of another process, described there. `steps` are the failed steps that it came from."""

    def __init__(self, told: Mapping[str, object], steps: tuple[str, ...]) -> None:
        super().__init__(str(told["message"]))
        self.told = {name: told[name] for name in ("type", "message", "traceback", "run_id", "state") if name in told}
        self.steps = steps


def describe_error(error: BaseException, *, step: str | None = None) -> str:
    """An error as canonical JSON: `type`, `message`, `traceback`, and `step` where one failed."""
    if isinstance(error, DescribedError):
        return payloads.encode(error.told | ({} if step is None else {"step": step}))
    told: dict[str, object] = {
        "type": type(error).__name__,
        "message": _clean(str(error))[:MESSAGE_SHOWN],
        "traceback": _clean("".join(traceback.format_exception(error)))[-TRACEBACK_SHOWN:],
    }
    if may_have_happened(error):
        told[MAY_HAVE_HAPPENED] = True
    if isinstance(error, StepError):
        told |= {"type": error.error_type, "message": _clean(error.message)[:MESSAGE_SHOWN]}
    if isinstance(error, ChildError):
        told |= {"run_id": error.run_id, "state": error.state}
    if step is not None:
        told["step"] = step
    return payloads.encode(told)


def failed_steps(error: BaseException) -> tuple[str, ...]:
    """The keys of the steps whose failure an error came from, through causes and groups."""
    return error.steps if isinstance(error, DescribedError) else tuple(dict.fromkeys(_walk(error)))


def _walk(error: BaseException | None) -> Iterator[str]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, RunError) and error.step is not None:
            yield error.step
        if isinstance(error, BaseExceptionGroup):
            for part in error.exceptions:
                yield from _walk(part)
        error = error.__cause__ or error.__context__


def _clean(text: str) -> str:
    """Text that every store takes: no lone surrogates, no NUL."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")
