"""What a worker and an isolated process say to each other: frames of JSON, each after its length in four bytes.

The process holds code that is not trusted: it says what happened to its attempt, and the worker says whose it is.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from pilothouse.control.attempts import Checkpoint, ClaimedRun
from pilothouse.control.runs import Request
from pilothouse.control.waits import Wait
from pilothouse.domain.lanes import Lane

Frame = dict[str, Any]

MAX_FRAME = 256 * 1024 * 1024
"""Bytes; far above any payload that a run may have."""

_LENGTH = struct.Struct("!I")
_CHILD_FIELDS = ("id", "agent", "input", "lane", "priority", "available_at")
_OWN_FIELDS = ("run_id", "attempt", "children")


class BrokenFrame(Exception):
    """What came is no frame."""


def send(writer: asyncio.StreamWriter, kind: str, **fields: Any) -> None:
    text = orjson.dumps({"kind": kind, **fields})
    writer.write(_LENGTH.pack(len(text)) + text)


async def receive(reader: asyncio.StreamReader) -> Frame | None:
    """The next frame, or None at the end. Raises BrokenFrame."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        if length > MAX_FRAME:
            raise BrokenFrame(f"a frame of {length} bytes")
        frame = orjson.loads(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    except ValueError as error:
        raise BrokenFrame(str(error)) from error
    if not isinstance(frame, dict) or not isinstance(frame.get("kind"), str):
        raise BrokenFrame("a frame without a kind")
    return frame


def claim_from(fields: Sequence[Any]) -> ClaimedRun:
    claim = ClaimedRun(*fields)
    return claim._replace(lane=Lane(claim.lane))


def checkpoint_fields(checkpoint: Checkpoint) -> Frame:
    own = {name: value for name, value in checkpoint._asdict().items() if name not in _OWN_FIELDS}
    children = [{name: getattr(child, name) for name in _CHILD_FIELDS} for child in checkpoint.children]
    return {"checkpoint": own, "children": children}


def checkpoint_from(frame: Frame, claim: ClaimedRun) -> Checkpoint:
    """Whatever the process says, it speaks for its own attempt, and its children are the run's."""
    children = tuple(_child_from(fields, claim) for fields in frame["children"])
    return Checkpoint(run_id=claim.run_id, attempt=claim.attempt, children=children, **frame["checkpoint"])


def _child_from(fields: Mapping[str, Any], claim: ClaimedRun) -> Request:
    return Request(
        **{name: fields[name] for name in _CHILD_FIELDS},
        principal=f"run:{claim.run_id}",
        tenant=claim.tenant,
        parent_id=claim.run_id,
        root_id=claim.root_id,
    )


def waits_from(rows: Sequence[Sequence[Any]]) -> tuple[Wait, ...]:
    return tuple(Wait(*row) for row in rows)
