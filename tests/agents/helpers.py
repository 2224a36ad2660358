"""Functions that the workflows of the tests name."""

from __future__ import annotations


def words_of(text: str) -> list[str]:
    return text.split()


def length_of(word: str) -> int:
    return len(word)


def add_one(number: int) -> int:
    return number + 1


def fail(times: int) -> str:
    raise RuntimeError(f"fails {times} times")
