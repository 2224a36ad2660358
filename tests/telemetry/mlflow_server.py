"""A real MLflow server, from an environment of its own, and what it says of what was told to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.postgres_server import free_port

ROOT = Path(__file__).parents[2]
START_SECONDS = 150.0
ANSWER_SECONDS = 30.0
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "PYTHONWARNINGS": "ignore",
}


def program() -> Path:
    """Where `make mlflow` puts it."""
    folder = ROOT / os.environ.get("MLFLOW_VENV", ".venv-mlflow")
    return folder / "bin" / "mlflow"


class MlflowServer:
    """Asked by its REST API."""

    def __init__(self, url: str) -> None:
        self.url = url

    def experiment(self, name: str) -> str:
        found = _asked(f"{self.url}/api/2.0/mlflow/experiments/get-by-name?experiment_name={name}")
        return str(found["experiment"]["experiment_id"])

    def runs(self, experiment: str) -> dict[str, dict[str, Any]]:
        """By their names: `info`, and `params`, `metrics` and `tags` by their keys."""
        found = _asked(f"{self.url}/api/2.0/mlflow/runs/search", {"experiment_ids": [experiment]}).get("runs", [])
        return {run["info"]["run_name"]: {"info": run["info"], **_by_key(run["data"])} for run in found}

    def traces(self, experiment: str) -> dict[str, dict[str, Any]]:
        """By their ids at MLflow, with `spans`."""
        where = [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}}]
        found = _asked(f"{self.url}/api/3.0/mlflow/traces/search", {"locations": where}).get("traces", [])
        return {trace["trace_id"]: trace | {"spans": self._spans(trace["trace_id"])} for trace in found}

    def _spans(self, trace_id: str) -> list[dict[str, Any]]:
        found = _asked(f"{self.url}/ajax-api/3.0/mlflow/get-trace-artifact?request_id={trace_id}")
        return list(found["spans"])


def _by_key(data: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    return {kind: {each["key"]: each["value"] for each in data.get(kind, [])} for kind in ("params", "metrics", "tags")}


def _asked(url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
        return json.load(answer)


@contextmanager
def serving(folder: Path) -> Iterator[MlflowServer]:
    """A server that keeps everything in `folder`, until this is left."""
    port, log = free_port(), folder / "mlflow.log"
    options = ("--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", f"{folder}/artifacts")
    command = [str(program()), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", *options]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MLFLOW_"))}
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=folder, env=kept | QUIET, stdout=out, stderr=out, stdin=subprocess.DEVNULL, process_group=0
        )
        try:
            server = MlflowServer(f"http://127.0.0.1:{port}")
            _wait(server, process, log)
            yield server
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # it keeps nothing that anybody needs
            process.wait()


def _wait(server: MlflowServer, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"{server.url}/health", timeout=ANSWER_SECONDS).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"MLflow did not start:\n{log.read_text(errors='replace')[-3000:]}")
