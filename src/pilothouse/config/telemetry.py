"""Settings of what Pilothouse tells of itself: logs, metrics, traces, and what MLflow gets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, field_validator
from pydantic_settings import BaseSettings

OTLP_PORT = 4318
GRPC_PORT = 4317
FILE_PREFIX = "file:"
TRACES_PATH = "/v1/traces"
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

_HEADER = re.compile(r"\s*(?P<name>[\w!#$%&'*+.^`|~-]+)\s*=\s*(?P<value>[^,]*?)\s*")


class TelemetrySettings(BaseSettings):
    """Where logs, metrics and traces go."""

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", validation_alias=AliasChoices("LOG_LEVEL"), description="The least level that is logged."
    )
    log_format: Literal["auto", "json", "pretty"] = Field(
        "auto",
        validation_alias=AliasChoices("LOG_FORMAT"),
        description="JSON lines, or pretty for people; auto is pretty on a terminal.",
    )
    log_destination: str = Field(
        "stderr",
        validation_alias=AliasChoices("LOG_DESTINATION"),
        description="Where logs go: stderr, stdout, file:PATH or https://…; several are separated by commas.",
    )
    log_token: str | None = Field(None, description="What a log server is shown as a bearer token.")
    enable_metrics: bool = Field(
        True, validation_alias=AliasChoices("ENABLE_METRICS"), description="Whether /metrics answers."
    )

    enable_tracing: bool | None = Field(
        None,
        validation_alias=AliasChoices("ENABLE_TRACING"),
        description="Whether runs are traced; unset: where otlp_endpoint says where to.",
    )
    otlp_endpoint: str | None = Field(
        None,
        validation_alias=AliasChoices("OTEL_EXPORTER_OTLP_ENDPOINT", "JAEGER_ENDPOINT"),
        description=f"Where traces go by OTLP over HTTP, such as http://127.0.0.1:{OTLP_PORT}.",
    )
    otlp_headers: str | None = Field(
        None,
        validation_alias=AliasChoices("OTEL_EXPORTER_OTLP_HEADERS"),
        description='Headers of what is sent there, such as "authorization=Bearer KEY,x-scope-orgid=1".',
    )
    service_name: str | None = Field(
        None,
        validation_alias=AliasChoices("OTEL_SERVICE_NAME"),
        description="What traces call this service; unset: the name of the App.",
    )
    trace_share: float = Field(
        1.0, ge=0, le=1, description="The share of the traces that are recorded, unless a submitter's traceparent says."
    )
    trace_content: bool = Field(
        False, description="Whether traces hold what people and models said: prompts, answers, arguments of tools."
    )
    mlflow_tracking_uri: str | None = Field(
        None,
        validation_alias=AliasChoices("MLFLOW_TRACKING_URI"),
        description="An MLflow server that ended runs are told to, such as http://mlflow:5000.",
    )
    mlflow_experiment: str = Field(
        "pilothouse",
        min_length=1,
        validation_alias=AliasChoices("MLFLOW_EXPERIMENT_NAME"),
        description="The experiment there; it is made when it is missing.",
    )
    mlflow_token: str | None = Field(
        None,
        validation_alias=AliasChoices("MLFLOW_TRACKING_TOKEN"),
        description="What MLflow is shown as a bearer token; a user and a password may stand in its URL.",
    )

    @property
    def trace_url(self) -> str | None:
        """Where traces go, with the path; None where nothing is traced."""
        if self.enable_tracing is False or not (self.enable_tracing or self.otlp_endpoint):
            return None
        base = (self.otlp_endpoint or f"http://127.0.0.1:{OTLP_PORT}").rstrip("/")
        return base if base.endswith(TRACES_PATH) else base + TRACES_PATH

    @property
    def parsed_otlp_headers(self) -> dict[str, str]:
        """By their names in small letters."""
        return dict(_headers(self.otlp_headers or ""))

    @property
    def log_files(self) -> list[Path]:
        """The files among the places where logs go."""
        parts = [part.strip() for part in self.log_destination.split(",")]
        return [Path(part.removeprefix(FILE_PREFIX)) for part in parts if part.startswith(FILE_PREFIX)]

    @field_validator("otlp_endpoint", "mlflow_tracking_uri")
    @classmethod
    def _check_url(cls, value: str | None) -> str | None:
        return None if value is None else _check_server(value)

    @field_validator("otlp_headers")
    @classmethod
    def _check_headers(cls, value: str | None) -> str | None:
        _headers(value or "")
        return value

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("log_destination")
    @classmethod
    def _check_destination(cls, value: str) -> str:
        for part in value.split(","):
            _check_log_destination(part.strip())
        return value


def _check_log_destination(text: str) -> None:
    if text in ("stderr", "stdout") or (text.startswith(FILE_PREFIX) and text != FILE_PREFIX):
        return
    parts = urlsplit(text)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and parts.hostname:
        if parts.hostname in LOOPBACK:
            return
        raise ValueError("logs leave this machine only by https://; http:// is for 127.0.0.1")
    raise ValueError("use stderr, stdout, file:PATH or https://HOST/PATH")


def _check_server(url: str) -> str:
    """A base URL. What people take for one by mistake is told what is wrong with it."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("write it as http://HOST:PORT or https://HOST")
    if parts.port == GRPC_PORT:
        raise ValueError(f"port {GRPC_PORT} is OTLP over gRPC; this is OTLP over HTTP, usually port {OTLP_PORT}")
    if parts.path.rstrip("/").endswith("/api/traces"):
        raise ValueError(f"/api/traces is Jaeger's old protocol; give its OTLP port, http://HOST:{OTLP_PORT}")
    return url


def _headers(text: str) -> list[tuple[str, str]]:
    found = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        match = _HEADER.fullmatch(part)
        if match is None:
            raise ValueError("write headers as name=value,name=value")
        found.append((match["name"].lower(), match["value"]))
    return found
