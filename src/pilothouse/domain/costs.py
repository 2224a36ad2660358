"""Costs: what a report says of each line, how a provider's figures compare with ours, and who bears a difference."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

GROUPS = ("agent", "version", "model", "tenant", "day", "user", "tool", "platform")


@dataclass(frozen=True, slots=True)
class CostLine:
    """What one agent, model, day and so on has used. `name` None: entries that know no such thing.

    Runs that are not in the run log any more count among `runs`, but nobody knows whether they succeeded, so that the
    cost of a successful run leaves them out.
    """

    name: str | None
    calls: int
    tokens: int
    actions: int
    microusd: int
    reserved_microusd: int
    runs: int
    known_runs: int
    succeeded: int
    known_microusd: int

    @property
    def microusd_per_success(self) -> int | None:
        """What a successful run costs: all that was spent on runs, the others included."""
        return round(self.known_microusd / self.succeeded) if self.succeeded else None


def share_of(line: CostLine, lines: Iterable[CostLine]) -> float:
    """The line's part of all that was spent, from 0 to 1."""
    total = sum(each.microusd for each in lines)
    return line.microusd / total if total else 0.0


def spread(amount: int, weights: Sequence[int]) -> list[int]:
    """`amount` in whole parts by weight (all alike where no weight counts), which add up to it exactly."""
    if not any(weights):
        weights = [1] * len(weights)
    total, sign = sum(weights), -1 if amount < 0 else 1
    parts = [divmod(abs(amount) * weight, total) for weight in weights]
    rest = abs(amount) - sum(part for part, _ in parts)
    largest = sorted(range(len(parts)), key=lambda place: -parts[place][1])[:rest]
    return [sign * (part + (place in largest)) for place, (part, _) in enumerate(parts)]


# --- a provider's figures ----------------------------------------------------------------------------


class Figure(NamedTuple):
    """What a provider, or the ledger, counts of a model on a day. Unknown: None. `model` "" is all models together."""

    microusd: int | None = None
    tokens: int | None = None

    def plus(self, other: Figure) -> Figure:
        return Figure(_sum(self.microusd, other.microusd), _sum(self.tokens, other.tokens))


def _sum(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else one + other


Place = tuple[str, str]
"""(day, model)"""


@dataclass(frozen=True, slots=True)
class Compared:
    """A day and a model. `names` are ours that belong to it, `ours` what the ledger holds of them, `held_microusd` what
    is reserved for calls of which nobody knows yet.
    """

    day: str
    model: str
    names: tuple[str, ...]
    ours: Figure
    theirs: Figure
    held_microusd: int = 0

    @property
    def difference_microusd(self) -> int | None:
        """What the provider counts more than the ledger; None where one of them knows nothing of it."""
        if self.theirs.microusd is None or not self.names:
            return None
        return self.theirs.microusd - (self.ours.microusd or 0)


def compare(
    ours: Mapping[Place, Figure], theirs: Mapping[Place, Figure], held: Mapping[Place, int], provider: str | None
) -> list[Compared]:
    """Day by day and model by model. Only models of `provider` are ours; None: of every one that theirs names."""
    rows, taken = [], set[Place]()
    for (day, model), figure in sorted(theirs.items()):
        names = [name for at, name in ours if at == day and is_of(name, provider) and is_same(name, model)]
        places = [(day, name) for name in names if (day, name) not in taken]
        taken.update(places)
        rows.append(_compared(day, model, places, figure, ours, held))
    days = {day for day, _ in theirs}
    rest = [place for place in ours if place not in taken and place[0] in days and is_of(place[1], provider)]
    rows += [_compared(place[0], place[1], [place], Figure(), ours, held) for place in rest]
    return sorted(rows, key=lambda row: (row.day, row.model))


def _compared(
    day: str,
    model: str,
    places: Sequence[Place],
    theirs: Figure,
    ours: Mapping[Place, Figure],
    held: Mapping[Place, int],
) -> Compared:
    total = Figure()
    for place in places:
        total = total.plus(ours[place])
    return Compared(
        day, model, tuple(name for _, name in places), total, theirs, sum(held.get(place, 0) for place in places)
    )


def is_of(name: str, provider: str | None) -> bool:
    """Whether a model such as `openai:gpt-5-mini` is the provider's."""
    return provider is None or name.startswith(f"{provider}:")


_SNAPSHOT = re.compile(r"-(\d{4}-\d\d-\d\d|\d{8}|\d{4}|latest)$")


def is_same(ours: str, theirs: str) -> bool:
    """Whether a model of ours is what an export calls `theirs`: by its name, that of a snapshot, or one for people."""
    return not theirs or _plain(ours.partition(":")[2]) == _plain(theirs)


def _plain(name: str) -> str:
    return _SNAPSHOT.sub("", re.sub(r"[\s._]+", "-", name.strip().lower()))


def total_by_place(rows: Iterable[tuple[str, str, Figure]]) -> dict[Place, Figure]:
    """Sums of many rows for a day and a model."""
    totals: dict[Place, Figure] = defaultdict(Figure)
    for day, model, figure in rows:
        totals[day, model] = totals[day, model].plus(figure)
    return dict(totals)
