"""How sure an agent says it is of a call: by an argument of the tool, which policies and stability plans look at."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse import App, Context
from pilothouse.control import autonomy
from pilothouse.control.autonomy import Subject
from pilothouse.domain.autonomy import Level, Standing
from pilothouse.errors import ToolError
from pilothouse.testing import TestPlatform
from tests.engine.conftest import Start


def desk() -> App:
    app = App("desk")

    @app.tool(effect="write", confidence="sure")
    async def reply(text: str, sure: float | None = None) -> str:
        """Writes to a customer; `sure` is how sure you are that it is right, 0 to 1."""
        return f"sent {text}"

    @app.agent
    async def agent(ctx: Context, sure: float | None = None) -> str:
        try:
            return str(await ctx.tool(reply, text="hello", sure=sure))
        except ToolError as error:
            return str(error)

    return app


async def asked(platform: TestPlatform, sure: float | None) -> list[dict[str, Any]]:
    run_id = await platform.submit("agent", {"sure": sure})
    await platform.run_until_idle()
    return await platform.approvals(run_id)


async def test_a_call_that_its_agent_is_not_sure_of_waits_for_a_person(start: Start) -> None:
    platform = await start(desk())

    assert await asked(platform, None) == []
    assert await asked(platform, 0.9) == []
    (approval,) = await asked(platform, 0.5)
    assert approval["confidence"] == 0.5
    assert [reason["rule"] for reason in approval["reasons"]] == ["confidence"]


async def test_a_confidence_out_of_bounds_goes_nowhere(start: Start) -> None:
    platform = await start(desk())

    assert await platform.run("agent", {"sure": 95}) == "tool 'reply': sure is 95; a confidence is 0 to 1"


@pytest.mark.parametrize(("sure", "is_asked"), [(None, True), (0.85, True), (0.95, False)])
async def test_on_trial_a_call_goes_out_that_is_sure_enough(start: Start, sure: float | None, is_asked: bool) -> None:
    app = desk()
    platform = await start(app)
    subject = Subject("agent", app.agents["agent"].version.fingerprint, "reply")
    standing = Standing(Level.AUTONOMOUS, least_confidence=0.9)
    await platform.db.transaction(lambda tx: autonomy.write(tx, subject, standing, principal="test", reason="a trial"))

    assert bool(await asked(platform, sure)) is is_asked
