"""Slots and demand: what is reserved stays reserved, and a worker never asks for more than it has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.lanes import LANE_ORDER, Lane, Slots, parse_lanes

COUNTS = st.fixed_dictionaries({lane: st.integers(0, 20) for lane in LANE_ORDER})
SLOTS = st.builds(Slots, COUNTS.filter(lambda counts: sum(counts.values()) > 0), st.integers(0, 10))


@st.composite
def usage(draw: st.DrawFn) -> tuple[Slots, dict[Lane, int]]:
    """Slots and runs that can be in them: what does not fit into its lane's own is in shared ones."""
    slots = draw(SLOTS)
    spill = draw(st.integers(0, slots.shared))
    in_use = {lane: draw(st.integers(0, slots.reserved[lane])) for lane in LANE_ORDER}
    lane = draw(st.sampled_from(LANE_ORDER))
    in_use[lane] = slots.reserved[lane] + spill if spill else in_use[lane]
    return slots, in_use


@given(usage())
def test_used_and_free_slots_make_the_total(case: tuple[Slots, dict[Lane, int]]) -> None:
    slots, in_use = case

    demand = slots.free(in_use)

    assert sum(in_use.values()) + sum(demand.reserved.values()) + demand.shared == slots.total


@given(usage())
def test_other_lanes_never_take_a_reserved_slot(case: tuple[Slots, dict[Lane, int]]) -> None:
    slots, in_use = case

    demand = slots.free(in_use)

    for lane in LANE_ORDER:
        assert demand.reserved[lane] == max(0, slots.reserved[lane] - in_use[lane])


@given(usage(), st.data())
def test_a_lane_that_left_its_own_slots_free_is_sated(case: tuple[Slots, dict[Lane, int]], data: st.DataObject) -> None:
    demand = case[0].free(case[1])
    taken = {lane: data.draw(st.integers(0, demand.reserved[lane])) for lane in LANE_ORDER}

    unsated = demand.unsated(taken)

    assert all(taken[lane] >= demand.reserved[lane] for lane in unsated)
    assert not any(taken[lane] < demand.reserved[lane] for lane in unsated)


def test_asking_for_some_lanes_asks_for_no_others() -> None:
    demand = Slots({Lane.CRITICAL: 1, Lane.NORMAL: 2, Lane.LOW: 3}, 4).free({}).only({Lane.LOW})

    assert (dict(demand.reserved), demand.shared, demand.most) == ({Lane.LOW: 3}, 4, 7)


@given(COUNTS)
def test_what_is_written_is_read_back(counts: dict[Lane, int]) -> None:
    assert parse_lanes(",".join(f"{lane}={count}" for lane, count in counts.items())) == counts


@pytest.mark.parametrize("text", ["fast=1", "low", "low=", "low=x", "low=-1", "=1"])
def test_what_does_not_fit_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=text):
        parse_lanes(text)
