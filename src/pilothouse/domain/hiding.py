"""Secrets taken out of what leaves the platform: those that are known, and whatever looks like one."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from pilothouse.domain.secrets import HIDDEN, SHORTEST

SENSITIVE = re.compile(
    r"pass(?:word|wd|phrase)|secret|token(?!s)|credential|authorization|cookie|(?:api|access|private)[_-]?key",
    re.IGNORECASE,
)
"""Names whose values nobody may see."""

LEAST_LINE = 16
"""Characters that a line of a secret of many lines must have to be looked for on its own."""

_KEPT = r"(?P<kept>"
_LOOKS = (
    re.compile(_KEPT + r"://[^:/?#@\s\"']{0,200}:)[^\s\"'@]+(?=@)"),
    re.compile(_KEPT + r"\b(?:bearer|basic)\s+)[\w.~+/=-]{8,}", re.IGNORECASE),
    re.compile(
        _KEPT + r"(?:" + SENSITIVE.pattern + r")[\w-]{0,20}\\?[\"']?\s?[:=]\s?\\?[\"']?"
        r"(?:(?:bearer|basic)\s+)?)(?!\*\*\*|null\b|none\b|\d{1,9}\b|(?:bearer|basic)\s)[^\s\"',;&}\\]+",
        re.IGNORECASE,
    ),
    re.compile(
        _KEPT + r")\b(?:(?:sk|pk|rk|whsec|ghp|gho|ghs|ghu|github_pat|glpat|xox[abprs]|ph|hf)[-_]|AKIA|AIza)[\w-]{12,}"
    ),
    re.compile(_KEPT + r")\b\d{6,12}:[\w-]{30,}"),
    re.compile(_KEPT + r")\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"),
    re.compile(_KEPT + r")-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----(?:(?!-----END)[\s\S])*(?:-----END[A-Z -]*)?"),
)
"""Passwords in URLs, headers, `name=value` with a name that says so, keys of known makers, bots, JWTs, private keys."""


class Hiding:
    """Takes `secrets` and what looks like one out of texts and values; doing it again changes nothing."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets for form in _forms(secret) if len(form) >= SHORTEST}
        longest_first = sorted(forms, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if forms else None

    def text(self, text: str) -> str:
        """The text without them."""
        shown = self._known.sub(HIDDEN, text) if self._known else text
        for look in _LOOKS:
            shown = look.sub(rf"\g<kept>{HIDDEN}", shown)
        return shown

    def value(self, value: Any) -> Any:
        """A JSON value with none in its texts and names, and nothing under a name that says it holds one."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(name)): self._under(str(name), item) for name, item in value.items()}
        if isinstance(value, Sequence):
            return [self.value(item) for item in value]
        return value

    def _under(self, name: str, value: Any) -> Any:
        return HIDDEN if isinstance(value, str) and value and SENSITIVE.search(name) else self.value(value)

    def line(self, line: str) -> str:
        """A line of a log, which may be JSON."""
        try:
            value = json.loads(line) if line.startswith("{") else None
        except ValueError:
            value = None
        if value is None:
            return self.text(line)
        return self.text(json.dumps(self.value(value), ensure_ascii=False))


def _forms(secret: str) -> Iterator[str]:
    """How a secret may be written: as it is, in JSON, in a URL, as base64, line by line."""
    for text in (secret, secret.strip()):
        yield text
        yield json.dumps(text)[1:-1]
        yield json.dumps(text, ensure_ascii=False)[1:-1]
        yield repr(text)[1:-1]
        yield quote(text, safe="")
        yield base64.b64encode(text.encode("utf-8", "replace")).decode()
    lines = secret.splitlines()
    if len(lines) > 1:
        yield from (line.strip() for line in lines if len(line.strip()) >= LEAST_LINE)
