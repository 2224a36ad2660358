"""What a transaction writes at its end: gathered while the work runs, written once before the commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from pilothouse.store.database import Transaction


class Closing(Protocol):
    """Something that gathers and is written at the end."""

    def write(self, tx: Transaction) -> None: ...


C = TypeVar("C", bound=Closing)


class Closings:
    """The closings of one transaction, at most one of each kind."""

    __slots__ = ("_gathered",)

    def __init__(self) -> None:
        self._gathered: dict[type[Closing], Closing] = {}

    def closing(self, kind: type[C]) -> C:
        """The one `kind` of this transaction, made when it is first asked for."""
        found = self._gathered.get(kind)
        if not isinstance(found, kind):
            found = self._gathered[kind] = kind()
        return found

    def write_closings(self, tx: Transaction) -> None:
        for gathered in self._gathered.values():
            gathered.write(tx)
