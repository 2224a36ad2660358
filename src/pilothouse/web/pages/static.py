"""Styles and scripts. Their address holds a hash of what they say, so a browser keeps them for ever."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Request, Response

from pilothouse.errors import NotFound

router = APIRouter(include_in_schema=False)

MEDIA_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
FOR_EVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of the dashboard: as it is, as it travels, and the hash of it."""

    content: bytes
    packed: bytes
    digest: str
    media_type: str


@cache
def asset(name: str) -> Asset:
    """The file `name` of the folder `static`. Raises NotFound."""
    kind = name.rpartition(".")[2]
    path = files("pilothouse.web").joinpath("static", *name.split("/"))
    if kind not in MEDIA_TYPES or ".." in name or not path.is_file():
        raise NotFound(f"there is no file {name[:100]!r} here")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:16]
    return Asset(content, gzip.compress(content, 9, mtime=0), digest, MEDIA_TYPES[kind])


def address(name: str) -> str:
    """Where a browser finds the file."""
    return f"/static/{asset(name).digest}/{name}"


@router.get("/static/{digest}/{name:path}")
async def serve(digest: str, name: str, request: Request) -> Response:
    found = asset(name)
    headers = {"X-Content-Type-Options": "nosniff", "Vary": "Accept-Encoding"}
    headers["Cache-Control"] = FOR_EVER if digest == found.digest else "no-store"
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(found.packed, 200, headers | {"Content-Encoding": "gzip"}, found.media_type)
    return Response(found.content, 200, headers, found.media_type)
