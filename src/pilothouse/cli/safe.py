"""Text of agents, users and providers, made safe for a terminal: what it would obey is shown as a sign instead."""

from __future__ import annotations

import re
import unicodedata

KEPT = frozenset("\n\t")
_ORDERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")
"""Control characters, and those that change the direction or the lines of what comes after them."""

_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
LEFT_TO_RIGHT_MARK = "\u200e"
"""Ends right-to-left text, so that the columns after it stay where they are. It is as wide as nothing."""


def safe(text: str) -> str:
    """The text with a picture of each control character: ESC as ␛. New lines and tabs stay. Doing it again changes
    nothing.
    """
    bare = text.replace(LEFT_TO_RIGHT_MARK, "")
    shown = _ORDERS.sub(_picture, bare)
    return shown + LEFT_TO_RIGHT_MARK if _RIGHT_TO_LEFT.search(shown) else shown


def _picture(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"<{unicodedata.name(found[0], f'U+{code:04X}').title()}>"
