"""Action caps on both stores: counted at the tool boundary; who is blocked waits until the day is over, and goes on."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from pilothouse import App, Context
from pilothouse.control import audit, limits
from pilothouse.control.timeline import why
from pilothouse.domain.limits import Limit, Period, Unit
from pilothouse.telemetry.event import Event
from pilothouse.telemetry.events import ActionCapReached
from pilothouse.testing import TestPlatform
from tests.engine.conftest import Start

PARIS = ZoneInfo("Europe/Paris")


def mailing(sent: list[str]) -> App:
    app = App("mail")

    @app.tool(effect="irreversible", platform="email")
    async def send_mail(to: str) -> None:
        sent.append(to)

    @app.tool(effect="read", platform="email")
    async def read_mail() -> int:
        return 1

    @app.agent
    async def writer(ctx: Context, to: str) -> None:
        await ctx.tool(read_mail)
        await ctx.tool(send_mail, to=to)

    @app.agent
    async def other(ctx: Context, to: str) -> None:
        await ctx.tool(send_mail, to=to)

    return app


async def move_to(platform: TestPlatform, moment: datetime) -> None:
    wanted = int(moment.astimezone(UTC).timestamp())
    await platform.advance(seconds=wanted - platform.clock.now_us() / 1_000_000)
    await platform.run_until_idle()


async def states(platform: TestPlatform, ids: list[str]) -> list[str]:
    return sorted([(await platform.get(id))["state"] for id in ids])


@pytest.mark.parametrize(
    ("evening", "hours"),
    [
        (datetime(2027, 3, 28, 1, 0, tzinfo=PARIS), 22),  # the clocks skip an hour
        (datetime(2027, 10, 31, 1, 0, tzinfo=PARIS), 24),  # they repeat one
        (datetime(2027, 5, 31, 23, 0, tzinfo=PARIS), 1),
        (datetime(2027, 12, 31, 12, 0, tzinfo=PARIS), 12),
        (datetime(2028, 2, 29, 12, 0, tzinfo=PARIS), 12),
    ],
    ids=["spring", "autumn", "month-end", "year-end", "leap-day"],
)
async def test_who_is_blocked_goes_on_at_midnight(
    database_url: str, start: Start, evening: datetime, hours: int
) -> None:
    sent: list[str] = []
    platform = await start(
        mailing(sent), url=database_url, action_caps={"tool:send_mail": 2}, budget_timezone="Europe/Paris"
    )
    await move_to(platform, evening)
    ids = [await platform.submit("writer", {"to": str(number)}) for number in range(5)]
    await platform.run_until_idle()
    assert (len(sent), await states(platform, ids)) == (2, ["succeeded"] * 2 + ["waiting"] * 3)

    await platform.advance(seconds=hours * 3600 - 1)
    await platform.run_until_idle()
    assert len(sent) == 2
    await platform.advance(seconds=1)
    await platform.run_until_idle()
    assert len(sent) == 4
    await platform.advance(seconds=25 * 3600)
    await platform.run_until_idle()

    assert (len(set(sent)), await states(platform, ids)) == (5, ["succeeded"] * 5)
    assert {(await platform.get(id))["failures"] for id in ids} == {0}


@pytest.mark.parametrize(
    ("caps", "waiting"),
    [
        ({"platform:email": 0}, {"writer", "other"}),
        ({"tool:send_mail": 0, "agent:writer": 5}, {"writer", "other"}),
        ({"agent:writer": 0}, {"writer"}),
        ({"tenant:acme": 0}, {"writer"}),
        ({"agent:*": 0}, {"writer", "other"}),
        ({"platform:telegram": 0, "tool:read_mail": 0}, set()),
    ],
)
async def test_a_cap_is_for_whom_it_is_for(
    database_url: str, start: Start, caps: dict[str, int], waiting: set[str]
) -> None:
    platform = await start(mailing([]), url=database_url, action_caps=caps)
    ids = {
        "writer": await platform.submit("writer", {"to": "a"}, tenant="acme"),
        "other": await platform.submit("other", {"to": "b"}),
    }
    await platform.run_until_idle()

    assert {agent for agent, id in ids.items() if (await platform.get(id))["state"] == "waiting"} == waiting


async def test_a_reached_cap_is_alerted_and_audited_and_may_be_raised(
    database_url: str, start: Start, events: list[Event]
) -> None:
    sent: list[str] = []
    platform = await start(mailing(sent), url=database_url, action_caps={"agent:writer": 1})
    ids = [await platform.submit("writer", {"to": str(number)}) for number in range(2)]
    await platform.run_until_idle()

    (event,) = [event for event in events if isinstance(event, ActionCapReached)]
    assert (event.account, event.level) == ("agent:writer", "error")
    (record,) = await audit.tail(platform.db, action="action_cap.reached")
    assert record["entity_id"].startswith("agent:writer/")
    assert record["run_id"] in ids
    told = await why(platform.db, record["run_id"])
    assert "the limit of agent:writer for" in told["reasons"][0]
    await limits.set_limit(platform.db, Limit("agent:writer", Period.DAY, Unit.ACTIONS, 2), principal="test")
    await platform.run_until_idle()
    assert await states(platform, ids) == ["succeeded", "succeeded"]


async def test_forty_at_once_make_exactly_ten_actions(database_url: str, start: Start) -> None:
    sent: list[str] = []
    platform = await start(mailing(sent), url=database_url, action_caps={"platform:email": 10})

    ids = await asyncio.gather(*(platform.submit("writer", {"to": str(number)}) for number in range(40)))
    await platform.run_until_idle()
    await platform.advance(seconds=10)  # who met others' reservations has asked again by now
    await platform.run_until_idle()

    assert (len(sent), len(set(sent))) == (10, 10)
    assert await states(platform, list(ids)) == ["succeeded"] * 10 + ["waiting"] * 30
