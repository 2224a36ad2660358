"""A run goes on under newer code: its checkpoints are migrated, and code that cannot go on leaves it alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pilothouse import App, Context
from pilothouse.control.timeline import why
from pilothouse.errors import ConfigError
from pilothouse.testing import TestPlatform


def make(text: str) -> dict[str, str]:
    return {"name": text}


def app_of(version: int, **migrations: Any) -> App:
    """An agent that looks a name up, waits, and greets. From version 2 on the look-up gives an object."""
    app = App("t")
    steps = {int(name.removeprefix("from_")): function for name, function in migrations.items()}

    @app.agent(state_version=version, migrations=steps)
    async def greet(ctx: Context) -> str:
        if version == 1:
            found = await ctx.step("look up", str, "Ada")
        else:
            found = (await ctx.step("find", make, "nobody"))["name"]
        await ctx.wait_for("go")
        return f"{version}: {found}"

    return app


def rename(results: Mapping[str, Any]) -> dict[str, Any]:
    return {"find": {"name": results["look up"]}}


async def waiting_run(url: str) -> str:
    async with TestPlatform(app_of(1), url=url) as platform:
        run_id = await platform.submit("greet")
        await platform.run_until_idle()
        assert (await platform.get(run_id))["state"] == "waiting"
        return run_id


async def test_a_run_of_the_older_code_goes_on_under_the_newer(database_url: str) -> None:
    run_id = await waiting_run(database_url)
    async with TestPlatform(app_of(2, from_1=rename), url=database_url) as platform:
        before_code = (await platform.get(run_id))["fingerprint"]
        await platform.signal(run_id, "go")
        await platform.run_until_idle()
        run = await platform.get(run_id)

    assert (run["state"], run["output"]) == ("succeeded", "2: Ada"), run["error"]
    assert run["state_version"] == 2
    assert run["fingerprint"] == before_code, "it keeps the fingerprint of the agent it started with"


async def test_versions_are_passed_one_at_a_time(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    run_id = await waiting_run(url)
    seen: list[int] = []

    def second(results: Mapping[str, Any]) -> dict[str, Any]:
        seen.append(2)
        return {"find": results["find"] | {"title": "Dr"}}

    async with TestPlatform(app_of(3, from_1=rename, from_2=second), url=url) as platform:
        await platform.signal(run_id, "go")
        await platform.run_until_idle()
        assert (await platform.get(run_id))["output"] == "3: Ada"
    assert seen == [2]


async def test_code_without_a_migration_leaves_the_run_and_why_says_so(database_url: str) -> None:
    run_id = await waiting_run(database_url)

    async with TestPlatform(app_of(2), url=database_url) as platform:
        await platform.signal(run_id, "go")
        fresh = await platform.submit("greet")
        await platform.signal(fresh, "go")
        while (await platform.get(fresh))["state"] != "succeeded":
            await platform.advance(seconds=0.1)
        told = await why(platform.db, run_id)
        assert (await platform.get(run_id))["attempt"] == 1
        assert "no live worker can continue it: it is in state version 1" in told["reasons"][0]
        assert "can continue 2" in told["reasons"][0]

    async with TestPlatform(app_of(1), url=database_url) as platform:
        await platform.run_until_idle()
        assert (await platform.get(run_id))["output"] == "1: Ada"


async def test_older_code_leaves_a_run_that_newer_code_has_begun(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    async with TestPlatform(app_of(2), url=url) as platform:
        run_id = await platform.submit("greet")
        await platform.run_until_idle()

    async with TestPlatform(app_of(1), url=url) as platform:
        await platform.signal(run_id, "go")
        fresh = await platform.submit("greet")
        while (await platform.get(fresh))["state"] != "waiting":
            await platform.advance(seconds=0.1)
        assert (await platform.get(run_id))["attempt"] == 1
        assert "the live workers can continue 1" in (await why(platform.db, run_id))["reasons"][0]


async def test_a_migration_that_fails_is_the_runs_error(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    run_id = await waiting_run(url)

    def broken(results: Mapping[str, Any]) -> dict[str, Any]:
        raise KeyError("look down")

    async with TestPlatform(app_of(2, from_1=broken), url=url) as platform:
        await platform.signal(run_id, "go")
        await platform.run_until_idle()
        error = (await platform.get(run_id))["error"]

    assert error["type"] == "StateMigrationError"
    assert "state version 2: KeyError: 'look down'" in error["message"]


@pytest.mark.parametrize(("version", "steps"), [(0, {}), (2, {2: rename}), (2, {0: rename})])
def test_versions_that_make_no_chain_are_refused(version: int, steps: dict[int, Any]) -> None:
    with pytest.raises(ConfigError, match="state_version"):

        @App("t").agent(state_version=version, migrations=steps)
        async def agent(ctx: Context) -> None: ...
