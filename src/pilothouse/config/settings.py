"""Every setting, with what follows from some of them together."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import AliasChoices, BeforeValidator, Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from pilothouse.config.alerts import AlertSettings
from pilothouse.config.dashboard import DashboardSettings
from pilothouse.config.health import HealthSettings
from pilothouse.config.history import HistorySettings
from pilothouse.config.telemetry import TelemetrySettings
from pilothouse.domain.autonomy import Level
from pilothouse.domain.calendars import Calendar
from pilothouse.domain.lanes import Slots, parse_lanes
from pilothouse.domain.limits import Limit, Period, Unit, action_cap
from pilothouse.domain.notices import parse_channels
from pilothouse.domain.policies import PolicyFunction, Rule, Rulebook, Thresholds
from pilothouse.domain.prices import Price
from pilothouse.domain.providers import Provider
from pilothouse.domain.queues import QueueLimits
from pilothouse.domain.rates import RateLimit, parse_rate_limits
from pilothouse.domain.routes import Route
from pilothouse.domain.runaways import RunawayRule
from pilothouse.domain.secrets import SecretRule

PREFIX = "PILOTHOUSE_"

LEASE_RENEWALS = 3
"""A lease lasts at least this many renewals, so that it survives some that fail."""

LEAST_LEASE_SECONDS = 15.0


def _named(*names: str) -> AliasChoices:
    return AliasChoices(*names)


def _share(given: object) -> object:
    """People write a share as 20% too."""
    text = str(given).strip()
    if not text.endswith("%"):
        return given
    try:
        return float(text.removesuffix("%")) / 100
    except ValueError:
        raise ValueError("write a share such as 0.2 or 20%") from None


Share = Annotated[float, BeforeValidator(_share)]


class Settings(AlertSettings, TelemetrySettings, HistorySettings, DashboardSettings, HealthSettings):
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
    redis_url: str | None = Field(
        None,
        validation_alias=_named("REDIS_URL"),
        description="Where workers share model limits and kept answers: redis://…; without it they do in the database.",
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
    runaway_same_calls: int = Field(
        25, ge=0, description="A run is halted when it has made the same call with the same result so often. 0: never."
    )
    runaway_same_errors: int = Field(
        10, ge=0, description="A run is halted when it has caught the same error so often. 0: never."
    )
    runaway_velocity: float = Field(
        3.0,
        ge=0,
        description="A run is halted at so many times its version's 99th percentile of tokens per minute. 0: never.",
    )
    confidence_auto_threshold: float = Field(
        0.9,
        ge=0,
        le=1,
        validation_alias=_named("CONFIDENCE_AUTO_THRESHOLD"),
        description="Confidence, as far as it was right before, under which an action asks a person.",
    )
    supervise_new_agents: bool = Field(
        False,
        description="Whether new agents and new versions start supervised: what changes the world asks until promoted.",
    )
    routes: dict[str, Route] = Field(
        default_factory=dict,
        description='Names for ordered lists of models with caps; in pilothouse.toml as [routes.NAME] models = ["…"].',
    )
    providers: dict[str, Provider] = Field(
        default_factory=dict,
        description="Where models are reached, with which keys and how often; as [providers.NAME].",
    )
    prices: dict[str, Price] = Field(
        default_factory=dict,
        description='Prices that beat the built-in list, in dollars per million tokens; as [prices."PROVIDER:MODEL"].',
    )
    offline_model: str | None = Field(
        None,
        description="Answers in the place of every model, without a network: offline:echo, offline:scripted:FILE or "
        "offline:rules:MODULE:FUNCTION.",
    )
    auto_spend_limit_usd: float = Field(
        10.0,
        ge=0,
        validation_alias=_named("AUTO_SPEND_LIMIT_USD"),
        description="What one action may cost before a person is asked, in dollars.",
    )
    max_run_usd: float = Field(5.0, ge=0, description="What one run may spend, in dollars.")
    max_run_tokens: int = Field(
        5_000_000,
        ge=0,
        validation_alias=_named("MAX_TOKENS_PER_TASK"),
        description="Tokens that one run may use, in and out.",
    )
    max_run_tool_calls: int = Field(
        1000,
        ge=0,
        validation_alias=_named("MAX_TOOL_CALLS_PER_TASK"),
        description="Calls of tools that one run may make.",
    )
    max_run_seconds: int = Field(
        14_400,
        ge=1,
        validation_alias=_named("MAX_EXECUTION_TIME_SECONDS"),
        description="How long one run may work, waiting not counted, in seconds.",
    )
    daily_budget_usd: float = Field(
        50.0,
        ge=0,
        validation_alias=_named("DAILY_BUDGET_USD"),
        description="What all runs together may spend in a day, in dollars.",
    )
    monthly_budget_usd: float = Field(
        500.0,
        ge=0,
        validation_alias=_named("MONTHLY_BUDGET_USD"),
        description="What all runs may spend in a month, in dollars.",
    )
    agent_daily_budget_usd: float | None = Field(
        None, ge=0, description="What each agent may spend in a day, in dollars; unset: what all may."
    )
    user_daily_tokens: int = Field(
        10_000_000,
        ge=0,
        validation_alias=_named("TOKEN_BUDGET_PER_USER_PER_DAY"),
        description="Tokens that the runs for one user may use in a day.",
    )
    max_actions_per_day: int = Field(
        1000,
        ge=0,
        validation_alias=_named("MAX_ACTIONS_PER_DAY"),
        description="Calls of tools that change the world, in a day, for each tenant.",
    )
    action_caps: dict[str, int] = Field({}, description='The same by scope; as [action_caps] "platform:email" = 100.')
    budget_timezone: str = Field(
        "UTC", description="The time zone in which days and months begin, such as Europe/Paris."
    )
    degrade_at: Share = Field(
        0.1,
        ge=0,
        le=1,
        validation_alias=_named("DEGRADE_TO_SMALL_MODEL_AT"),
        description="With so little of a daily or monthly budget left (0.1 or 10%), only degrade_route is asked.",
    )
    degrade_route: str | None = Field(None, description="The route that is asked when a budget nears its end.")
    cache_at: Share = Field(
        0.2,
        ge=0,
        le=1,
        validation_alias=_named("ENABLE_CACHING_AT"),
        description="With so little of a daily or monthly budget left (0.2 or 20%), answers are kept and used again.",
    )
    secrets: dict[str, SecretRule] = Field(
        default_factory=dict,
        description="Which tools' secrets exist, and which agents and tenants they are for; as [secrets.NAME].",
    )
    denied_data_classes: str = Field(
        "", description='Classes of data that no action may touch, such as "secret, health".'
    )
    approval_channels: str = Field(
        "",
        description='Where people are told what waits for them: "email:ops@example.com, telegram:CHAT, '
        'webhook:https://…"; what they need is in the how-to on approvals.',
    )
    approval_secret: str | None = Field(
        None, min_length=16, description="What the links in messages are signed with; without it they only lead there."
    )
    public_url: str | None = Field(
        None, description="Where people reach this server, for links in messages; http://HOST:PORT unless given."
    )
    smtp_url: str | None = Field(
        None,
        description="The mail server for messages: smtp://USER@HOST:587, smtps://USER@HOST:465, or "
        "smtp+plain://HOST:25; the password is in the variable SMTP_PASSWORD.",
    )
    mail_from: str | None = Field(None, description="Who messages by mail come from.")
    telegram_url: str = Field("https://api.telegram.org", description="Where Telegram's bots are reached.")
    policies: dict[str, Rule] = Field(
        default_factory=dict,
        description='When to ask a person, or to refuse; as [policies.NAME] with conditions and then = "ask".',
    )
    max_input_bytes: int = Field(1_048_576, ge=1024, description="The largest body of a request.")

    @model_validator(mode="after")
    def _check_together(self) -> Settings:
        _ = self.slots, self.parsed_rate_limits, self.calendar, self.limits
        if any(each.startswith("email:") for each in self.every_channel) and not (self.smtp_url and self.mail_from):
            name = "approval_channels" if "email:" in self.approval_channels else "alert_channels"
            raise ValueError(f"{name} names an email address, which needs smtp_url and mail_from")
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
        return self

    @property
    def lease_us(self) -> int:
        """How long a lease lasts, in microseconds."""
        least = max(LEAST_LEASE_SECONDS, LEASE_RENEWALS * self.renew_interval_seconds)
        return int((self.lease_seconds or least) * 1_000_000)

    @property
    def calendar(self) -> Calendar:
        """When days and months begin."""
        return Calendar(self.budget_timezone)

    @property
    def limits(self) -> tuple[Limit, ...]:
        """How much may be used; operators may set others."""
        wanted = (
            Limit("run:*", Period.RUN, Unit.MICROUSD, _microusd(self.max_run_usd)),
            Limit("run:*", Period.RUN, Unit.TOKENS, self.max_run_tokens),
            Limit("run:*", Period.RUN, Unit.CALLS, self.max_run_tool_calls),
            Limit("run:*", Period.RUN, Unit.SECONDS, self.max_run_seconds),
            Limit("global", Period.DAY, Unit.MICROUSD, _microusd(self.daily_budget_usd)),
            Limit("global", Period.MONTH, Unit.MICROUSD, _microusd(self.monthly_budget_usd)),
            Limit("agent:*", Period.DAY, Unit.MICROUSD, _microusd(self.agent_daily_budget_usd)),
            Limit("user:*", Period.DAY, Unit.TOKENS, self.user_daily_tokens),
            Limit("tenant:*", Period.DAY, Unit.ACTIONS, self.max_actions_per_day),
        )
        caps = tuple(action_cap(scope, amount) for scope, amount in self.action_caps.items())
        return tuple(limit for limit in wanted + caps if limit.amount is not None)

    @property
    def new_agent_level(self) -> Level:
        """The autonomy of agents and versions of which nothing else is said."""
        return Level.SUPERVISED if self.supervise_new_agents else Level.ASSISTED

    @property
    def channels(self) -> tuple[str, ...]:
        """Where people are told what waits for them."""
        return parse_channels(self.approval_channels)

    @property
    def told_channels(self) -> tuple[str, ...]:
        """Where people are told of alerts."""
        given = self.alert_channels
        return self.channels if given is None else parse_channels(given, setting="alert_channels")

    @property
    def every_channel(self) -> tuple[str, ...]:
        """Where people are told of anything."""
        return tuple(dict.fromkeys((*self.channels, *self.told_channels)))

    @property
    def base_url(self) -> str:
        """Where people reach this server."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (self.public_url or f"http://{host}:{self.port}").rstrip("/")

    def rulebook(self, functions: tuple[PolicyFunction, ...] = ()) -> Rulebook:
        """The policies of the settings, and those in Python."""
        denied = tuple(part.strip() for part in self.denied_data_classes.split(",") if part.strip())
        thresholds = Thresholds(self.auto_spend_limit_usd, self.confidence_auto_threshold, denied)
        return Rulebook(thresholds, self.policies, functions)

    @property
    def queue_limits(self) -> QueueLimits:
        """When new runs are refused."""
        return QueueLimits(self.max_queued_per_lane, self.max_queued_per_tenant)

    @property
    def runaway_rule(self) -> RunawayRule:
        """When a run has run away."""
        return RunawayRule(self.runaway_same_calls, self.runaway_same_errors, self.runaway_velocity)

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


def _microusd(dollars: float | None) -> int | None:
    return None if dollars is None else round(dollars * 1_000_000)
