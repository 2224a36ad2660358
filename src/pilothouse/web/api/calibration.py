"""Calibration: what agents say of their chances, against what people decided."""

from __future__ import annotations

from fastapi import APIRouter, Response

from pilothouse.control import calibration
from pilothouse.web import autonomy_schemas as schemas
from pilothouse.web.answers import answer
from pilothouse.web.backend import BackendOf
from pilothouse.web.openapi import gives

router = APIRouter(prefix="/api/v1/agents/{name}", tags=["agents"])


@router.get("/calibration", responses=gives(schemas.Calibration))
async def get_calibration(name: str, backend: BackendOf) -> Response:
    """Stated confidence against outcomes by bucket, the error, and the threshold that comes of it."""
    threshold = backend.settings.confidence_auto_threshold
    return answer(await calibration.show_calibration(backend.db, name, threshold=threshold))
