"""How a handler ended, before anything of it is written."""

from __future__ import annotations

from dataclasses import dataclass

from pilothouse.domain.runs import Ending


@dataclass(frozen=True, slots=True)
class Ended:
    """How the handler ended. `output` is JSON; `delay_seconds` is what it asked for, if anything."""

    ending: Ending
    output: str | None = None
    error: BaseException | None = None
    reason: str | None = None
    delay_seconds: float | None = None
