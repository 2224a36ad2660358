"""Telemetry of one process: the sinks that its settings ask for, put together, and closed at its end."""

from __future__ import annotations

from typing import Any

from pilothouse.clock import SystemClock, new_id
from pilothouse.config.sources import mask
from pilothouse.config.telemetry import TRACES_PATH, TelemetrySettings
from pilothouse.telemetry.courier import CLOSE_SECONDS, Courier, Destination
from pilothouse.telemetry.events import Emitter, Sink
from pilothouse.telemetry.mlflow import Experiment, MlflowRuns, Totals
from pilothouse.telemetry.otlp import Encoder
from pilothouse.telemetry.sinks import EventLog
from pilothouse.telemetry.traces import Traces, TraceServer

OUR_OWN = "the writer of spans"


class Telemetry:
    """What a process tells, and to whom. `trace_share` of its runs are traced, 0 where none is."""

    def __init__(self, settings: TelemetrySettings, service: str, totals: Totals) -> None:
        """`service` is what traces call the process, unless the settings do; `totals` are what MLflow is told."""
        self._log = EventLog()
        self._couriers: list[Courier[Any]] = []
        sinks: list[Sink] = [self._log]
        servers: list[TraceServer] = []
        if settings.trace_url is not None:
            place = Destination(mask(settings.trace_url), self._log)
            servers.append(TraceServer(settings.trace_url, place, headers=lambda: settings.parsed_otlp_headers))
        if settings.mlflow_tracking_uri is not None:
            place = Destination(mask(settings.mlflow_tracking_uri), self._log)
            experiment = Experiment(settings.mlflow_tracking_uri, settings.mlflow_experiment, settings.mlflow_token)
            runs = MlflowRuns(experiment, totals, place)
            self._couriers.append(runs.courier)
            sinks.append(runs)
            if settings.enable_tracing is not False:
                servers.append(TraceServer(settings.mlflow_tracking_uri, place, TRACES_PATH, experiment.headers))
        self._traces = None
        if servers:
            encoder = Encoder(settings.service_name or service, new_id())
            self._traces = Traces(servers, encoder, settings.trace_share, Destination(OUR_OWN, self._log))
            sinks.append(self._traces)
        self.trace_share = settings.trace_share if servers else 0.0
        self.emitter = Emitter(sinks, wants_content=settings.trace_content and bool(servers))

    def close(self) -> None:
        """Sends what is left, for at most two seconds. It blocks."""
        clock = SystemClock()
        until = clock.monotonic() + CLOSE_SECONDS
        for courier in self._couriers:
            courier.hurry()
        if self._traces is not None:
            self._couriers += self._traces.close()
        for courier in self._couriers:
            courier.hurry()
        for courier in self._couriers:
            courier.close(max(0.0, until - clock.monotonic()))
