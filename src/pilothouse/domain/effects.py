"""Effects: what calling a tool does to the world outside."""

from __future__ import annotations

from enum import StrEnum


class Effect(StrEnum):
    """`pure`: nothing, and it looks at nothing. `read`: it looks. `idempotent`: doing it twice is doing it once.
    `write`: it changes something. `irreversible`: nobody can take it back.
    """

    PURE = "pure"
    READ = "read"
    IDEMPOTENT = "idempotent"
    WRITE = "write"
    IRREVERSIBLE = "irreversible"

    @property
    def changes_the_world(self) -> bool:
        return self not in (Effect.PURE, Effect.READ)


def question_of(key: str, number: int) -> str:
    """The name of the signal that says whether the `number`th call of a step took place."""
    return f"{key}.happened" if number == 1 else f"{key}.happened-{number}"
