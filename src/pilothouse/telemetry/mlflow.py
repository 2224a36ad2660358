"""MLflow, without its client: each run of ours that has ended is a run there, told over MLflow's REST API.

Its parameters say what was run, its metrics what it took. Traces go there as well, in `traces.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson

from pilothouse.domain.runs import TERMINAL
from pilothouse.domain.traces import trace_id_of
from pilothouse.errors import StoreError
from pilothouse.telemetry.courier import Courier, Destination, Terms, Undelivered
from pilothouse.telemetry.event import Event
from pilothouse.telemetry.events import RunClaimed, RunDropped, RunSettled
from pilothouse.telemetry.http import Line

WHAT = "MLflow runs"
API = "/api/2.0/mlflow"
EXPERIMENT_HEADER = "x-mlflow-experiment-id"
JSON = {"content-type": "application/json"}
NOT_FOUND, BAD_REQUEST = 404, 400
STATUSES: Mapping[str, str] = {"succeeded": "FINISHED", "failed": "FAILED", "cancelled": "KILLED"}
TERMS = Terms(limit=10_000, batch=20, cpu_share=0.01)
"""Three requests for each run are dear, so that a burst of runs is told slowly."""

Totals = Callable[[Sequence[str]], Mapping[str, Mapping[str, Any]]]
"""What runs have come to, by their ids, as the database knows it. Called on the courier's thread."""


class Experiment:
    """One experiment of one server, found or made when it is first needed. Safe to share between threads."""

    def __init__(self, url: str, name: str, token: str | None = None) -> None:
        self._headers = {} if token is None else {"authorization": f"Bearer {token}"}
        self.url, self._name = url, name
        self._line = Line(url, self._headers)
        self._lock = threading.Lock()
        self._id: str | None = None

    def headers(self) -> dict[str, str]:
        """What a request that belongs to the experiment bears. Raises Undelivered."""
        return {EXPERIMENT_HEADER: self.id(), **self._headers}

    def id(self) -> str:
        with self._lock:
            if self._id is None:
                self._id = self._find() or self._make()
            return self._id

    def call(self, path: str, body: Mapping[str, Any]) -> Any:
        """The answer to a request. Not for several threads at once. Raises Undelivered."""
        _, answer = self._line.send(f"{API}{path}", orjson.dumps(body), JSON)
        return _parsed(answer)

    def close(self) -> None:
        self._line.close()

    def _find(self) -> str | None:
        path = f"{API}/experiments/get-by-name?experiment_name={quote(self._name, safe='')}"
        with closing(Line(self.url, self._headers)) as line:
            status, answer = line.send(path, method="GET", known=(NOT_FOUND,))
        return None if status == NOT_FOUND else str(_parsed(answer)["experiment"]["experiment_id"])

    def _make(self) -> str:
        """Another process may make it in the same moment; then it is there the next time."""
        body = orjson.dumps({"name": self._name})
        with closing(Line(self.url, self._headers)) as line:
            status, answer = line.send(f"{API}/experiments/create", body, JSON, known=(BAD_REQUEST,))
        if status == BAD_REQUEST:
            raise Undelivered(f"experiment {self._name!r} cannot be made: {answer.decode(errors='replace')[:200]}")
        return str(_parsed(answer)["experiment_id"])


def _parsed(answer: bytes) -> Any:
    try:
        return orjson.loads(answer)
    except ValueError as error:
        raise Undelivered(f"it answered no JSON; is this an MLflow server? {answer[:100]!r}") from error


@dataclass(slots=True)
class Ended:
    """A run that has ended, and how far it is told: its id at MLflow once it is there."""

    claimed: RunClaimed
    settled: RunSettled
    mlflow_id: str | None = None
    is_told: bool = False


class MlflowRuns:
    """The sink."""

    def __init__(self, experiment: Experiment, totals: Totals, destination: Destination) -> None:
        self._experiment, self._totals = experiment, totals
        self._running: dict[str, RunClaimed] = {}
        self.courier: Courier[Ended] = Courier(WHAT, destination, self._tell_all, TERMS)
        self.courier.hang_up = experiment.close

    def __call__(self, event: Event) -> None:
        kind = type(event)
        if kind is RunClaimed:
            self._running[event.run_id] = event  # type: ignore[attr-defined,assignment]  # its type was just looked at
        elif isinstance(event, (RunSettled, RunDropped)):
            claimed = self._running.pop(event.run_id, None)
            if claimed is not None and isinstance(event, RunSettled) and event.state in TERMINAL:
                self.courier.offer(Ended(claimed, event))

    def _tell_all(self, ended: Sequence[Ended]) -> None:
        left = [each for each in ended if not each.is_told]
        try:
            known = self._totals([each.claimed.run_id for each in left])
        except StoreError as error:
            raise Undelivered(f"the database does not say what the runs came to: {error}") from error
        for each in left:
            self._tell(each, known.get(each.claimed.run_id, {}))

    def _tell(self, ended: Ended, totals: Mapping[str, Any]) -> None:
        call, state = self._experiment.call, str(totals.get("state", ended.settled.state))
        if ended.mlflow_id is None:
            wanted = _run(ended.claimed, state, totals) | {"experiment_id": self._experiment.id()}
            ended.mlflow_id = str(call("/runs/create", wanted)["run"]["info"]["run_id"])
        at = _finished_at(ended, totals) // 1000
        metrics = [
            {"key": name, "value": value, "timestamp": at, "step": 0} for name, value in _metrics(ended, totals).items()
        ]
        call("/runs/log-batch", {"run_id": ended.mlflow_id, "metrics": metrics, "params": _params(ended.claimed)})
        status = STATUSES.get(state, "FAILED")
        call("/runs/update", {"run_id": ended.mlflow_id, "status": status, "end_time": at})
        ended.is_told = True


def _run(claimed: RunClaimed, state: str, totals: Mapping[str, Any]) -> dict[str, Any]:
    tags = {
        "pilothouse.run_id": claimed.run_id,
        "pilothouse.root_id": claimed.root_id,
        "pilothouse.agent": claimed.agent,
        "pilothouse.version": claimed.version,
        "pilothouse.tenant": claimed.tenant,
        "pilothouse.lane": claimed.lane,
        "pilothouse.state": state,
        "pilothouse.trace_id": trace_id_of(claimed.root_id, claimed.traceparent),
        "mlflow.source.name": claimed.agent,
    }
    if totals:
        tags["pilothouse.cost_usd"] = f"{totals['cost_microusd'] / 1_000_000:.6f}"
    if claimed.parent_id is not None:
        tags["pilothouse.parent_id"] = claimed.parent_id
    return {"run_name": claimed.run_id, "start_time": claimed.created_at // 1000, "tags": _pairs(tags)}


def _params(claimed: RunClaimed) -> list[dict[str, str]]:
    return _pairs({"agent": claimed.agent, "version": claimed.version, "lane": claimed.lane, "tenant": claimed.tenant})


def _metrics(ended: Ended, totals: Mapping[str, Any]) -> dict[str, float]:
    started_at = totals.get("started_at") or ended.claimed.claimed_at
    found = {
        "duration_seconds": (_finished_at(ended, totals) - started_at) / 1_000_000,
        "waited_seconds": (started_at - ended.claimed.created_at) / 1_000_000,
        "attempts": ended.claimed.attempt,
    }
    if totals:
        found["cost_usd"] = totals["cost_microusd"] / 1_000_000
        found |= {name: totals[name] for name in ("tokens_in", "tokens_out", "model_calls", "tool_calls")}
    return found


def _finished_at(ended: Ended, totals: Mapping[str, Any]) -> int:
    return int(totals.get("finished_at") or ended.settled.settled_at)


def _pairs(texts: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": name, "value": value} for name, value in texts.items()]
