"""Settings: one frozen object, read once from the environment and `pilothouse.toml`, the environment first."""

from __future__ import annotations

import difflib
import math
import os
import re
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import AliasChoices, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from pilothouse.domain.lanes import Slots, parse_lanes
from pilothouse.domain.queues import QueueLimits
from pilothouse.domain.rates import RateLimit, parse_rate_limits
from pilothouse.errors import ConfigError

TOML_NAME = "pilothouse.toml"
PREFIX = "PILOTHOUSE_"
PARENT_VARIABLE = "PILOTHOUSE_PARENT"
HARMLESS = frozenset({"PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "TZ", "VIRTUAL_ENV", "LD_LIBRARY_PATH"})
HARMLESS_PREFIXES = ("LANG", "LC_", "PYTHON", "SSL_CERT_")
"""Variables that hold no secrets: every isolated process sees them."""

LEASE_RENEWALS = 3
"""A lease lasts at least this many renewals, so that it survives some that fail."""

LEAST_LEASE_SECONDS = 15.0

PASSWORDS = re.compile(r"(?P<before>://[^:/?#@\s]*:)\S+(?=@)|(?P<key>password=)[^&\s]+")
"""In a URL: between user and host, or as an option."""


def _named(*names: str) -> AliasChoices:
    return AliasChoices(*names)


SECRETS = frozenset({"webhook_secret"})
"""Settings that nobody may see."""


class Settings(BaseSettings):
    """Every setting of Pilothouse. Names in the environment are in capitals; in pilothouse.toml they are as here."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix=PREFIX, populate_by_name=True)

    app: str | None = Field(None, description='The App to run, as "module:attribute".')
    database_url: str = Field(
        "sqlite:///./pilothouse.db",
        min_length=1,
        validation_alias=_named("DATABASE_URL", "POSTGRES_URL"),
        description="Where everything is kept: sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE.",
    )
    direct_url: str | None = Field(
        None,
        validation_alias=_named("DIRECT_URL"),
        description="The same PostgreSQL database without the pooler, for LISTEN and migrations.",
    )
    pool_size: int = Field(8, ge=2, le=200, description="PostgreSQL transactions of one process at once.")
    host: str = Field("127.0.0.1", description="Where the API listens; only loopback until API keys exist.")
    port: int = Field(8000, ge=0, le=65535, description="The API's port; 0 takes any free one.")
    engine_enabled: bool = Field(
        True,
        validation_alias=_named("ENGINE_ENABLED"),
        description="False: workers keep their lease but claim nothing; API and dashboard stay up.",
    )
    poll_interval_ms: int = Field(
        500,
        ge=10,
        validation_alias=_named("ENGINE_TICK_INTERVAL_MS"),
        description="How often an idle worker looks for due runs when no hint arrives, in milliseconds.",
    )
    renew_interval_seconds: float = Field(
        3.0,
        gt=0,
        validation_alias=_named("AGENT_HEARTBEAT_INTERVAL"),
        description="How often a worker renews its lease, in seconds.",
    )
    lease_seconds: float | None = Field(
        None, gt=0, description="How long a worker's lease lasts; unset: 15 s, or three renewals if that is longer."
    )
    attempt_timeout_seconds: float = Field(
        300.0,
        gt=0,
        validation_alias=_named("AGENT_TASK_TIMEOUT_SECONDS"),
        description="The time-out of an attempt, for agents that set none.",
    )
    lanes: str = Field("critical=4,normal=8,low=2", description="Slots of a worker that each lane has for itself.")
    shared_slots: int = Field(4, ge=0, description="Slots of a worker that all lanes share.")
    max_concurrent_runs: int | None = Field(
        None,
        ge=1,
        validation_alias=_named("AGENT_MAX_CONCURRENT_TASKS"),
        description="All slots of a worker together; those that no lane has for itself are shared.",
    )
    drain_seconds: float = Field(30.0, ge=0, description="How long a stopping worker lets its attempts finish.")
    chore_interval_ms: int = Field(1000, ge=10, description="How often the scheduler runs its chores.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", validation_alias=_named("LOG_LEVEL"), description="The least level that is logged."
    )
    log_format: Literal["auto", "json", "pretty"] = Field(
        "auto",
        validation_alias=_named("LOG_FORMAT"),
        description="JSON lines, or pretty for people; auto is pretty on a terminal.",
    )
    log_destination: str = Field(
        "stderr",
        validation_alias=_named("LOG_DESTINATION"),
        description="Where logs go: stderr, or file:PATH.",
    )
    enable_metrics: bool = Field(
        True, validation_alias=_named("ENABLE_METRICS"), description="Whether /metrics answers."
    )
    retention_days: float = Field(
        30.0, ge=0, description="How long ended runs are kept; dead letters until they are dealt with. 0: for ever."
    )
    audit_retention_days: float = Field(
        0.0, ge=0, description="How long sealed records of the audit are kept; no shorter than the runs. 0: for ever."
    )
    webhook_secret: str | None = Field(
        None, min_length=16, description="What webhooks are signed with; without one a worker delivers none."
    )
    max_queued_per_lane: int = Field(
        1_000_000, ge=1, description="Queued runs of one lane beyond which new ones are refused with 429."
    )
    max_queued_per_tenant: int = Field(
        1_000_000, ge=1, description="Queued runs of one tenant beyond which new ones are refused with 429."
    )
    rate_limits: str = Field(
        "",
        description='Requests that each API key may make of a route, such as "POST /api/v1/runs=100/s, GET *=50/s".',
    )
    max_input_bytes: int = Field(1_048_576, ge=1024, description="The largest body of a request.")

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_together(self) -> Settings:
        _ = self.slots, self.parsed_rate_limits
        if self.lease_seconds is not None and self.lease_seconds < 2 * self.renew_interval_seconds:
            raise ValueError(
                f"lease_seconds is {self.lease_seconds:g}, but a lease must last at least two renewals of "
                f"{self.renew_interval_seconds:g} s (renew_interval_seconds)"
            )
        if 0 < self.audit_retention_days < (self.retention_days or math.inf):
            raise ValueError(
                f"audit_retention_days is {self.audit_retention_days:g}, but the audit must outlast the runs: "
                f"retention_days is {self.retention_days:g} (0: for ever)"
            )
        if self.log_destination != "stderr" and not self.log_destination.startswith("file:"):
            raise ValueError(f"log_destination is {self.log_destination!r}; use stderr or file:PATH")
        return self

    @property
    def lease_us(self) -> int:
        """How long a lease lasts, in microseconds."""
        least = max(LEAST_LEASE_SECONDS, LEASE_RENEWALS * self.renew_interval_seconds)
        return int((self.lease_seconds or least) * 1_000_000)

    @property
    def queue_limits(self) -> QueueLimits:
        """When new runs are refused."""
        return QueueLimits(self.max_queued_per_lane, self.max_queued_per_tenant)

    @property
    def parsed_rate_limits(self) -> tuple[RateLimit, ...]:
        """The first that covers a request counts."""
        return parse_rate_limits(self.rate_limits)

    @property
    def slots(self) -> Slots:
        """A worker's slots, by lane and shared."""
        reserved = parse_lanes(self.lanes)
        if self.max_concurrent_runs is None:
            return Slots(reserved, self.shared_slots)
        shared = self.max_concurrent_runs - sum(reserved.values())
        if shared < 0:
            raise ValueError(
                f"max_concurrent_runs is {self.max_concurrent_runs}, but the lanes reserve {sum(reserved.values())}"
            )
        return Slots(reserved, shared)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings


class Shown(NamedTuple):
    """A setting as `config show` prints it: secrets masked, `source` says where it came from."""

    name: str
    value: str
    source: str


def load_settings(**overrides: Any) -> Settings:
    """Reads the settings; `overrides` (those that are not None) beat the environment, which beats the file.

    Raises ConfigError that names the setting, its value and where it was set.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    from_file = {name: value for name, value in _read_toml().items() if not _environment_name(name)}
    try:
        return Settings(**{**from_file, **given})
    except ValidationError as error:
        raise ConfigError("; ".join(_told(problem, given) for problem in error.errors())) from error


def describe_settings(**overrides: Any) -> list[Shown]:
    """Every setting with its value and source, in their order."""
    settings, from_file = load_settings(**overrides), _read_toml()
    return [
        Shown(name, _shown(name, getattr(settings, name)), _source(name, overrides, from_file))
        for name in Settings.model_fields
    ]


def environment_names(name: str) -> list[str]:
    """The names of a setting in the environment, the first that is set wins."""
    alias = Settings.model_fields[name].validation_alias
    others = [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else []
    return [*others, PREFIX + name.upper()]


def child_environment(**changes: str) -> dict[str, str]:
    """This process's environment for a child process that stops when this one is gone, with some variables changed."""
    return {**os.environ, PARENT_VARIABLE: str(os.getpid()), **changes}


def isolated_environment(secrets: Collection[str]) -> dict[str, str]:
    """What an isolated process sees of this environment: the variables named in `secrets`, and harmless ones."""
    seen = HARMLESS.union(secrets)
    return {name: text for name, text in os.environ.items() if name in seen or name.startswith(HARMLESS_PREFIXES)}


def is_child() -> bool:
    """Whether the process that made this one's environment still runs; once it was so, it can end."""
    return os.environ.get(PARENT_VARIABLE) == str(os.getppid())


def _environment_name(name: str) -> str | None:
    """The variable that sets a setting now, if any."""
    known = {variable.upper() for variable in os.environ}
    return next((variable for variable in environment_names(name) if variable in known), None)


def _source(name: str, overrides: dict[str, Any], from_file: dict[str, Any]) -> str:
    if overrides.get(name) is not None:
        return "command line"
    variable = _environment_name(name)
    if variable is not None:
        return variable
    return TOML_NAME if name in from_file else "default"


def _read_toml() -> dict[str, Any]:
    path = Path(TOML_NAME)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path.absolute()} cannot be read: {error}") from error
    for key in values:
        if key not in Settings.model_fields:
            close = difflib.get_close_matches(key, Settings.model_fields, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "`pilothouse config show` lists the settings"
            raise ConfigError(f"{path.absolute()}: there is no setting {key!r}; {hint}")
    return values


def _told(problem: Any, given: dict[str, Any]) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not problem["loc"]:
        return f"settings: {message}"
    alias = str(problem["loc"][0])
    name = next(known for known in Settings.model_fields if alias in (known, *environment_names(known)))
    value = problem["input"]
    shown = _shown(name, value) if isinstance(value, str) else value
    return f"setting {name} = {shown!r} ({_source(name, given, {name: value})}): {message}"


def _shown(name: str, value: object) -> str:
    return "***" if name in SECRETS and value else mask(value)


def mask(value: object) -> str:
    """Passwords in URLs are not for eyes, even where the URL is not a good one."""
    text = "" if value is None else str(value)
    return PASSWORDS.sub(r"\g<before>\g<key>***", text)
