"""Seals: whatever is done to a record or to a seal is found, and a record that is wrong is named."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.seals import SEALED_FIELDS, Seal, check_chain, check_records, leaf_hash, make_seal, merkle_root

texts = st.none() | st.text(max_size=5)


def record(seq: int, **changes: Any) -> dict[str, Any]:
    return dict.fromkeys(SEALED_FIELDS, "x") | {"seq": seq, "attempt": None} | changes


records = st.lists(st.integers(1, 200), min_size=1, max_size=30, unique=True).map(
    lambda numbers: [record(seq, reason=f"r{seq}") for seq in sorted(numbers)]
)


def sealed(rows: list[dict[str, Any]], *, number: int = 1, previous: Seal | None = None) -> Seal:
    return make_seal(rows, number=number, previous=previous, last_seq=rows[-1]["seq"], sealed_at=7)


def test_the_tree_is_that_of_the_rfc() -> None:
    def node(left: bytes, right: bytes) -> bytes:
        return hashlib.sha256(b"\x01" + left + right).digest()

    a, b, c, d, e = (bytes([number]) * 32 for number in range(5))
    assert merkle_root([]) == hashlib.sha256(b"").digest()
    assert merkle_root([a]) == a
    assert merkle_root([a, b, c]) == node(node(a, b), c)
    assert merkle_root([a, b, c, d, e]) == node(node(node(a, b), node(c, d)), e)


@given(records)
def test_what_was_not_touched_holds(rows: list[dict[str, Any]]) -> None:
    seal = sealed(rows)

    assert check_chain(seal, None) == []
    assert check_records(seal, rows) == []


@given(records, st.data())
def test_a_changed_record_is_named(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(rows) - 1))
    name = data.draw(st.sampled_from([each for each in SEALED_FIELDS if each != "seq"]))
    value = data.draw((texts | st.integers(0, 9)).filter(lambda value: value != rows[place][name]))
    changed = [*rows[:place], rows[place] | {name: value}, *rows[place + 1 :]]

    (finding,) = check_records(sealed(rows), changed)
    assert (finding.seq, finding.problem) == (rows[place]["seq"], "changed")


@given(records, st.data())
def test_a_removed_record_is_named(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(rows) - 1))

    (finding,) = check_records(sealed(rows), rows[:place] + rows[place + 1 :])
    assert (finding.seq, finding.problem) == (rows[place]["seq"], "removed")


@given(records, st.integers(1, 200))
def test_an_inserted_record_is_named(rows: list[dict[str, Any]], seq: int) -> None:
    taken = {row["seq"] for row in rows}
    inserted = sorted([*rows, record(seq)], key=lambda row: row["seq"])
    found = check_records(sealed(rows), inserted)

    if seq in taken:
        assert {finding.problem for finding in found} <= {"changed", "inserted"}
        assert found
    else:
        assert [(finding.seq, finding.problem) for finding in found] == [(seq, "inserted")]


@given(
    st.sampled_from(["number", "first_seq", "last_seq", "records", "root", "leaves", "previous", "hash", "sealed_at"])
)
def test_a_changed_seal_is_found(name: str) -> None:
    first = sealed([record(1), record(2)])
    second = sealed([record(3)], number=2, previous=first)
    value = getattr(second, name)
    broken = replace(second, **{name: value + 1 if isinstance(value, int) else f"{value}0"})  # type: ignore[arg-type]  # the field's own type

    assert check_chain(second, first) == []
    assert check_chain(broken, first) != []


def test_a_removed_seal_and_one_of_another_chain_are_found() -> None:
    first = sealed([record(1)])
    second = sealed([record(2)], number=2, previous=first)
    third = sealed([record(3)], number=3, previous=second)
    other = sealed([record(1, reason="other")])

    assert "2 to 2 were removed" in check_chain(third, first)[0].problem
    assert check_chain(second, None) != []
    assert "does not follow" in check_chain(second, other)[0].problem


def test_a_leaf_tells_nothing_from_none() -> None:
    assert leaf_hash(record(1, reason=None)) != leaf_hash(record(1, reason="null"))
    assert leaf_hash(record(1, before="a", after=None)) != leaf_hash(record(1, before=None, after="a"))
