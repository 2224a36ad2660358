"""An agent: a registered name, its handler and its defaults."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pilothouse import payloads
from pilothouse.control.agents import CODE, AgentCard
from pilothouse.control.concurrency import AgentVersion
from pilothouse.domain.autonomy import Level
from pilothouse.domain.lanes import Lane
from pilothouse.domain.limits import MOST, RUN_AT, Limit, Period, Unit
from pilothouse.domain.retries import Backoff
from pilothouse.domain.windows import Window
from pilothouse.engine.journal import StateMigration
from pilothouse.engine.signature import Handler, Signature, read_signature
from pilothouse.engine.tools import Toolbox
from pilothouse.errors import ConfigError

ISOLATIONS = ("none", "process")

LEAST_MEMORY_MB = 64

SOURCE = "__pilothouse_source__"
"""The attribute of a handler that was made of something else: the text of what it was made of."""

DEFINITION = "__pilothouse_definition__"
"""The attribute of a handler that says what it was defined as, where that is not code."""


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """An agent's defaults.

    `max_attempts` counts the attempts that end in failure; `max_losses` those lost with their worker.
    `timeout_seconds` bounds one attempt (None: the setting `attempt_timeout_seconds`), `run_timeout_seconds` the
    whole run from when it is due. `fatal` are exception types after which another attempt would not help.
    `state_version` is the version of the checkpoints that the code writes; `migrations` lead to it from older ones.
    `max_running` bounds how many runs of it run at once, on all workers, `max_running_per_key` those of one concurrency
    key (None: any number).
    `isolation` "process" gives each attempt a process of its own, which may hold `memory_mb` megabytes (None: no limit)
    and sees, of the worker's environment, the variables named in `secrets`. `model` is the route or the model that it
    asks unless a question names another (None: the default route), `window` how its conversations are kept short.
    `autonomy` "supervised" makes each new version start supervised (None: the setting `supervise_new_agents`).
    `max_cost_usd`, `max_tokens`, `max_tool_calls` and `max_work_seconds` are what one run of it may use (None: what
    every run may, by the settings).
    """

    lane: Lane = Lane.NORMAL
    priority: int = 0
    max_attempts: int = 3
    max_losses: int = 5
    timeout_seconds: float | None = None
    run_timeout_seconds: float | None = None
    backoff: Backoff = field(default_factory=Backoff)
    fatal: tuple[type[Exception], ...] = ()
    state_version: int = 1
    migrations: Mapping[int, StateMigration] = field(default_factory=dict)
    description: str = ""
    max_running: int | None = None
    max_running_per_key: int | None = None
    isolation: Literal["none", "process"] = "none"
    memory_mb: int | None = None
    secrets: tuple[str, ...] = ()
    model: str | None = None
    window: Window | None = None
    autonomy: Literal["supervised"] | None = None
    max_cost_usd: float | None = None
    max_tokens: int | None = None
    max_tool_calls: int | None = None
    max_work_seconds: int | None = None

    def limits(self, agent: str) -> tuple[Limit, ...]:
        """What one run may use."""
        cost = None if self.max_cost_usd is None else round(self.max_cost_usd * 1_000_000)
        amounts = {
            Unit.MICROUSD: cost,
            Unit.TOKENS: self.max_tokens,
            Unit.CALLS: self.max_tool_calls,
            Unit.SECONDS: self.max_work_seconds,
        }
        given = [(unit, amount) for unit, amount in amounts.items() if amount is not None]
        return tuple(Limit(RUN_AT + agent, Period.RUN, unit, amount) for unit, amount in given)


@dataclass(frozen=True, slots=True)
class Agent:
    """What a worker needs to run an agent, and what it tells the database about it."""

    name: str
    handler: Handler
    options: AgentOptions
    signature: Signature
    is_async: bool
    version: AgentVersion
    toolbox: Toolbox = field(default_factory=Toolbox)

    def card(self, app: str, default_timeout_seconds: float) -> AgentCard:
        options = self.options
        input_schema, output_schema = self.signature.schemas()
        run_timeout = options.run_timeout_seconds
        return AgentCard(
            name=self.name,
            app=app,
            description=options.description,
            lane=options.lane,
            priority=options.priority,
            max_attempts=options.max_attempts,
            max_losses=options.max_losses,
            timeout_us=int((options.timeout_seconds or default_timeout_seconds) * 1_000_000),
            run_timeout_us=None if run_timeout is None else int(run_timeout * 1_000_000),
            input_schema=input_schema,
            output_schema=output_schema,
            state_version=self.version.newest,
            fingerprint=self.version.fingerprint,
            max_running=options.max_running,
            max_running_per_key=options.max_running_per_key,
            autonomy=options.autonomy,
            definition=getattr(self.handler, DEFINITION, CODE),
        )


def make_agent(name: str, handler: Handler, options: AgentOptions, toolbox: Toolbox | None = None) -> Agent:
    """An agent that finds its tools in `toolbox`. Raises ConfigError where the handler or an option cannot be used."""
    if not callable(handler):
        raise ConfigError(f"agent {name!r}: its handler is {handler!r}, which cannot be called; give a function")
    if not name or len(name) > 255 or name != name.strip():
        raise ConfigError(f"agent {name!r}: a name has 1 to 255 characters and no space around it")
    for option in ("max_attempts", "max_losses", "max_running", "max_running_per_key"):
        value = getattr(options, option)
        if value is not None and value < 1:
            raise ConfigError(f"agent {name!r}: {option} is {value}; it must be at least 1")
    for option in ("timeout_seconds", "run_timeout_seconds"):
        value = getattr(options, option)
        if value is not None and value <= 0:
            raise ConfigError(f"agent {name!r}: {option} is {value}; it must be more than 0")
    _check_limits(name, options)
    _check_isolation(name, options)
    if options.autonomy not in (None, Level.SUPERVISED):
        raise ConfigError(
            f"agent {name!r}: autonomy is {options.autonomy!r}; an App can only ask for 'supervised', more is earned: "
            "`pilothouse agents promote`"
        )
    if options.priority not in range(10):
        raise ConfigError(f"agent {name!r}: priority is {options.priority}; it must be 0 to 9")
    signature = read_signature(handler, name)
    version = _version(name, handler, options)
    is_async = inspect.iscoroutinefunction(handler)
    return Agent(name, handler, options, signature, is_async, version, toolbox or Toolbox())


def _check_limits(name: str, options: AgentOptions) -> None:
    for option in ("max_cost_usd", "max_tokens", "max_tool_calls", "max_work_seconds"):
        value = getattr(options, option)
        if value is not None and not 0 <= value * (1_000_000 if option == "max_cost_usd" else 1) <= MOST:
            raise ConfigError(f"agent {name!r}: {option} is {value}; it must be 0 or more")


def _check_isolation(name: str, options: AgentOptions) -> None:
    if options.isolation not in ISOLATIONS:
        raise ConfigError(f"agent {name!r}: isolation is {options.isolation!r}; it is 'none' or 'process'")
    if options.isolation == "none" and (options.memory_mb is not None or options.secrets):
        raise ConfigError(f"agent {name!r}: memory_mb and secrets need isolation='process'")
    if options.memory_mb is not None and options.memory_mb < LEAST_MEMORY_MB:
        raise ConfigError(
            f"agent {name!r}: memory_mb is {options.memory_mb}; Python alone needs about {LEAST_MEMORY_MB}"
        )


def _version(name: str, handler: Handler, options: AgentOptions) -> AgentVersion:
    if options.state_version < 1:
        raise ConfigError(f"agent {name!r}: state_version is {options.state_version}; it counts from 1")
    unknown = sorted(set(options.migrations) - set(range(1, options.state_version)))
    if unknown:
        raise ConfigError(
            f"agent {name!r}: migrations has {unknown[0]}, but leads from a version below "
            f"state_version = {options.state_version}"
        )
    oldest = options.state_version
    while oldest - 1 in options.migrations:
        oldest -= 1
    return AgentVersion(
        name,
        oldest,
        options.state_version,
        _fingerprint(handler, options.state_version),
        options.max_running,
        options.max_running_per_key,
    )


def _fingerprint(handler: Handler, state_version: int) -> str:
    """What changes when the handler's own code or its state version does."""
    if hasattr(handler, SOURCE):
        return payloads.digest(f"{state_version}:{getattr(handler, SOURCE)}")
    try:
        source = inspect.getsource(handler)
    except (OSError, TypeError):  # typed in at a prompt, or no function
        source = getattr(handler, "__qualname__", repr(type(handler)))
    return payloads.digest(f"{state_version}:{source}")
