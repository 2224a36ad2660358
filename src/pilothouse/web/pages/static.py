"""Styles and scripts. Their address holds a hash of what all of them say, so a browser keeps them for ever."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import APIRouter, Request, Response

from pilothouse.errors import NotFound

router = APIRouter(include_in_schema=False)

MEDIA_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
FOR_EVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of the dashboard: as it is, and as it travels."""

    content: bytes
    packed: bytes
    media_type: str


@cache
def asset(name: str) -> Asset:
    """The file `name` of the folder `static`. Raises NotFound."""
    kind = name.rpartition(".")[2]
    path = files("pilothouse.web").joinpath("static", *name.split("/"))
    if kind not in MEDIA_TYPES or ".." in name or not path.is_file():
        raise NotFound(f"there is no file {name[:100]!r} here")
    content = path.read_bytes()
    return Asset(content, gzip.compress(content, 9, mtime=0), MEDIA_TYPES[kind])


@cache
def edition() -> str:
    """The hash of all files: a script loads others by their names alone, so they share their folder's address."""
    hashed = hashlib.sha256()
    for content in sorted(_contents(files("pilothouse.web").joinpath("static"))):
        hashed.update(hashlib.sha256(content).digest())
    return hashed.hexdigest()[:16]


def _contents(folder: Traversable) -> Iterator[bytes]:
    for path in folder.iterdir():
        if path.is_dir():
            yield from _contents(path)
        else:
            yield path.read_bytes()


def address(name: str) -> str:
    """Where a browser finds the file."""
    return f"/static/{edition()}/{name}"


@router.get("/static/{digest}/{name:path}")
async def serve(digest: str, name: str, request: Request) -> Response:
    found = asset(name)
    headers = {"X-Content-Type-Options": "nosniff", "Vary": "Accept-Encoding"}
    headers["Cache-Control"] = FOR_EVER if digest == edition() else "no-store"
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(found.packed, 200, headers | {"Content-Encoding": "gzip"}, found.media_type)
    return Response(found.content, 200, headers, found.media_type)
