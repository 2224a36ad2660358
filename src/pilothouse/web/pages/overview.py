"""The status page: one self-contained file that fetches `/api/v1/overview` every few seconds."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Response

router = APIRouter(include_in_schema=False)

_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


@router.head("/")
@router.get("/")
async def show_overview() -> Response:
    text, policy = _page()
    headers = {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
    return Response(text, headers=headers, media_type="text/html")


@cache
def _page() -> tuple[str, str]:
    """The page, and a policy that lets a browser run what is written in it and nothing else."""
    text = (files("pilothouse.web") / "templates" / "overview.html").read_text(encoding="utf-8")
    digests = {kind: b64encode(hashlib.sha256(body.encode()).digest()).decode() for kind, body in _INLINE.findall(text)}
    policy = (
        f"default-src 'none'; script-src 'sha256-{digests['script']}'; style-src 'sha256-{digests['style']}'; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text, policy
