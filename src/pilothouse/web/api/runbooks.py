"""Runbooks: what to do when something is wrong."""

from __future__ import annotations

from fastapi import APIRouter, Response

from pilothouse.control import runbooks
from pilothouse.web import runbook_schemas as schemas
from pilothouse.web.answers import answer
from pilothouse.web.openapi import gives

router = APIRouter(prefix="/api/v1", tags=["runbooks"])


@router.get("/runbooks", responses=gives(schemas.RunbookList))
async def list_runbooks() -> Response:
    """Every runbook, and when it is for."""
    return answer({"items": [runbooks.summary(each) for each in runbooks.runbooks().values()], "next": None})


@router.get("/runbooks/{name}", responses=gives(schemas.Runbook))
async def get_runbook(name: str) -> Response:
    """A runbook with its steps and their commands."""
    return answer(runbooks.public(runbooks.find_runbook(name)))
