"""What agents say cannot move the cursor, change a colour or turn the direction of a line."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.cli.safe import LEFT_TO_RIGHT_MARK, safe

TURNING = ("LRO", "RLO", "LRE", "RLE", "PDF", "LRI", "RLI", "FSI", "PDI")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2Jgone", "␛[2Jgone"),
        ("one\ntwo\tthree\r", "one\ntwo\tthree␍"),
        ("\x7f\x00", "␡␀"),
        ("\u202eevil", "<Right-To-Left Override>evil"),
        ("\x9b31m", "<U+009B>31m"),
        ("plain", "plain"),
        ("שלום", f"שלום{LEFT_TO_RIGHT_MARK}"),
    ],
)
def test_what_a_terminal_would_obey_is_shown(text: str, shown: str) -> None:
    assert safe(text) == shown


@given(st.text() | st.text(alphabet="\x1b[2J\x9b\u202e\u200fשa\n"))
def test_no_order_is_left_and_doing_it_again_changes_nothing(text: str) -> None:
    shown = safe(text)

    assert safe(shown) == shown
    left = set(shown) - {"\n", "\t", LEFT_TO_RIGHT_MARK}
    assert not any(unicodedata.category(sign) == "Cc" or unicodedata.bidirectional(sign) in TURNING for sign in left)
