"""A real MLflow server has what Pilothouse told it without its client: runs, parameters, metrics, costs and traces."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from pilothouse import App, Context, FatalError
from tests.telemetry.mlflow_server import MlflowServer, program, serving
from tests.telemetry.working import until, working

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.xdist_group("mlflow")]


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    if not program().exists():
        told = f"NOT TESTED with MLflow: there is no {program()}; `make mlflow` installs it"
        pytest.fail(told) if os.environ.get("CI") else pytest.skip(told)
    with serving(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


PRICES = {"offline:echo": {"input_usd": 1000.0, "output_usd": 1000.0}}


def shop() -> App:
    app = App("shop")

    @app.agent
    async def kid(ctx: Context, number: int) -> int:
        return await ctx.step("double", lambda: number * 2)

    @app.agent
    async def order(ctx: Context) -> str:
        text: str = await ctx.llm("greet", "what the customer said")
        child = await ctx.start("kid", {"number": 3})
        await child.result()
        return text

    @app.agent
    async def bad(ctx: Context) -> None:
        raise FatalError("no such order")

    return app


async def test_mlflow_has_runs_metrics_costs_and_traces(mlflow: MlflowServer, tmp_path: Path) -> None:
    told: dict[str, Any] = {"mlflow_tracking_uri": mlflow.url, "mlflow_experiment": "shop", "prices": PRICES}
    async with working(shop(), tmp_path, offline_model="offline:echo", **told) as work:
        order = await work.ended(await work.submit("order"))
        bad = await work.ended(await work.submit("bad"))
        assert (order["state"], bad["state"]) == ("succeeded", "failed")
        experiment = await until(lambda: _experiment(mlflow))
        runs = await until(lambda: _complete(mlflow.runs(experiment)))
        traces = await until(lambda: found if len(found := mlflow.traces(experiment)) == 2 else None)
        assert not work.logged("export.failing")

    run = runs[order["id"]]
    assert run["info"]["status"] == "FINISHED"
    assert run["info"]["start_time"] == order["created_at"] // 1000
    assert run["info"]["end_time"] == order["finished_at"] // 1000
    assert (run["params"]["agent"], run["params"]["tenant"]) == ("order", "default")
    metrics = run["metrics"]
    assert (metrics["model_calls"], metrics["attempts"]) == (1, order["attempt"])
    spent = (metrics["tokens_in"] + metrics["tokens_out"]) / 1000
    assert metrics["cost_usd"] == pytest.approx(spent) == pytest.approx(float(run["tags"]["pilothouse.cost_usd"]))
    assert spent > 0
    assert metrics["duration_seconds"] > 0
    assert runs[bad["id"]]["info"]["status"] == "FAILED"
    (kid,) = [each for each in runs.values() if each["params"]["agent"] == "kid"]
    assert kid["tags"]["pilothouse.parent_id"] == order["id"]

    assert set(traces) == {f"tr-{each['id'].replace('-', '')}" for each in (order, bad)}
    trace = traces[f"tr-{run['tags']['pilothouse.trace_id']}"]
    assert (trace["state"], trace["trace_metadata"]["mlflow.trace.session"]) == ("OK", order["id"])
    names = [span["name"] for span in trace["spans"]]
    assert {"invoke_agent order", "invoke_agent kid", "attempt 1", "chat echo", "double"} <= set(names)
    assert "what the customer said" not in str(trace)
    assert traces[f"tr-{bad['id'].replace('-', '')}"]["state"] == "ERROR"


def _experiment(mlflow: MlflowServer) -> str | None:
    try:
        return mlflow.experiment("shop")
    except HTTPError:  # nothing was told yet
        return None


def _complete(runs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]] | None:
    """Once all three are there and have ended."""
    return runs if len(runs) == 3 and all(run["info"]["status"] != "RUNNING" for run in runs.values()) else None
