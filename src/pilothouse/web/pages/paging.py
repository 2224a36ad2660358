"""Pages of lists: which address shows what comes after the last row."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode

from fastapi import Request


def next_page(request: Request, place: str) -> str:
    """The address of the page after this one: the same filters, from `place` on."""
    kept = [(name, value) for name, value in parse_qsl(request.url.query) if name not in ("after", "tenant")]
    return f"{request.url.path}?{urlencode([*kept, ('after', place)])}"
