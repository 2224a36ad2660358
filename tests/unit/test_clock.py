"""Ids ascend and are well formed; clocks tell what they promise."""

from __future__ import annotations

import os
import random
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.clock import FrozenClock, SystemClock, from_datetime, isoformat, new_id, to_datetime

INSTANTS = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-5, minutes=-30))]))


def test_an_id_is_a_uuid_of_version_7_and_of_now() -> None:
    before = SystemClock().now_us()

    made = uuid.UUID(new_id())

    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert before // 1000 <= made.int >> 80 <= SystemClock().now_us() // 1000 + 1


def test_ids_ascend() -> None:
    ids = [new_id() for _ in range(20_000)]

    assert ids == sorted(set(ids))


def test_threads_never_make_the_same_id() -> None:
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda _: [new_id() for _ in range(2000)], range(8)))

    assert all(part == sorted(part) for part in parts)
    assert len({id for part in parts for id in part}) == 16_000


def test_ids_do_not_follow_the_seed_of_user_code() -> None:
    endings = set()
    for _ in range(2):
        random.seed(1)
        endings.add(new_id()[-17:])

    assert len(endings) == 2


def test_a_forked_process_makes_other_ids() -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, new_id().encode())
        os._exit(0)
    os.waitpid(child, 0)

    with os.fdopen(reader) as answer:
        os.close(writer)
        assert answer.read()[-17:] != new_id()[-17:]


def test_a_frozen_clock_moves_only_when_told() -> None:
    clock = FrozenClock(1_000)
    assert (clock.now_us(), clock.monotonic()) == (1_000, 0.0)

    clock.advance(seconds=1.5)
    assert (clock.now_us(), clock.monotonic()) == (1_501_000, 1.5)
    with pytest.raises(ValueError, match=r"go back by 0\.5 seconds"):
        clock.advance(seconds=-0.5)


def test_a_frozen_clock_counts_the_steps_of_all_threads() -> None:
    clock = FrozenClock(0)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: clock.advance(seconds=0.001), range(1000)))

    assert clock.now_us() == 1_000_000


@given(INSTANTS)
def test_instants_and_datetimes_are_the_same_moment(moment: datetime) -> None:
    us = from_datetime(moment)

    assert to_datetime(us) == moment
    assert datetime.fromisoformat(isoformat(us)) == moment
    assert isoformat(us).endswith("Z")


def test_an_instant_is_written_with_microseconds() -> None:
    assert isoformat(from_datetime(datetime(2026, 11, 21, 0, 28, tzinfo=UTC))) == "2026-11-21T00:28:00.000000Z"


def test_a_naive_datetime_is_refused() -> None:
    with pytest.raises(ValueError, match="has no time zone"):
        from_datetime(datetime(2026, 1, 1))  # noqa: DTZ001
