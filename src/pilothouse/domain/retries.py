"""How long to wait before trying again, and which errors are worth it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential back-off with full jitter.

    The n-th wait is drawn evenly from [half, all] of `first_seconds * factor ** (n - 1)`, capped at `limit_seconds`.
    Half of it is kept so that a wait is never close to nothing.
    """

    first_seconds: float = 1.0
    factor: float = 2.0
    limit_seconds: float = 300.0

    def __post_init__(self) -> None:
        if self.first_seconds < 0 or self.limit_seconds < 0 or self.factor < 1:
            raise ValueError("back-off needs first_seconds >= 0, limit_seconds >= 0 and factor >= 1")

    def delay_seconds(self, number: int, jitter: float) -> float:
        """The wait before try `number` + 1; `number` counts from 1, `jitter` is in [0, 1)."""
        exponent = min(max(number, 1) - 1, 64)
        full = min(self.limit_seconds, self.first_seconds * self.factor**exponent)
        return full * (0.5 + 0.5 * jitter)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a step is tried, how long it waits in between, and on which errors.

    `attempts` counts all tries. `on` are the exception types worth another try; `unless` are those that never are.
    """

    attempts: int = 1
    backoff: Backoff = Backoff(first_seconds=0.2, limit_seconds=30.0)
    on: tuple[type[BaseException], ...] = (Exception,)
    unless: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts is {self.attempts}; a step needs at least 1")

    def is_worth_another_try(self, error: BaseException, tries: int) -> bool:
        return tries < self.attempts and isinstance(error, self.on) and not isinstance(error, self.unless)
