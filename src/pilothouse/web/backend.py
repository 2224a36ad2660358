"""What the routes stand on: the database, the submitter, the settings, sessions and news, Redis if any."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from pilothouse.config import Settings
from pilothouse.control import Database, Redis
from pilothouse.control.runs import Submitter
from pilothouse.control.sessions import Sessions
from pilothouse.web.newsroom import Newsroom


@dataclass(frozen=True, slots=True)
class Backend:
    """`stopping` is set when the process shuts down; what streams then ends its streams."""

    db: Database
    submitter: Submitter
    settings: Settings
    stopping: asyncio.Event
    sessions: Sessions
    newsroom: Newsroom
    redis: Redis | None = None


def backend_of(request: Request) -> Backend:
    return cast(Backend, request.app.state.backend)


async def _backend_of(request: Request) -> Backend:
    return backend_of(request)


BackendOf = Annotated[Backend, Depends(_backend_of)]
"""A route's parameter. The busiest routes call `backend_of` instead: injection costs a tenth of their time."""
