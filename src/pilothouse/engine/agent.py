"""An agent: a registered name, its handler and its defaults."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pilothouse import payloads
from pilothouse.control.agents import AgentCard
from pilothouse.control.concurrency import AgentVersion
from pilothouse.domain.lanes import Lane
from pilothouse.domain.retries import Backoff
from pilothouse.engine.journal import StateMigration
from pilothouse.engine.signature import Handler, Signature, read_signature
from pilothouse.errors import ConfigError

ISOLATIONS = ("none", "process")

LEAST_MEMORY_MB = 64


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
    and sees, of the worker's environment, the variables named in `secrets`.
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


@dataclass(frozen=True, slots=True)
class Agent:
    """What a worker needs to run an agent, and what it tells the database about it."""

    name: str
    handler: Handler
    options: AgentOptions
    signature: Signature
    is_async: bool
    version: AgentVersion

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
        )


def make_agent(name: str, handler: Handler, options: AgentOptions) -> Agent:
    """Raises ConfigError where the handler or an option cannot be used."""
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
    _check_isolation(name, options)
    if options.priority not in range(10):
        raise ConfigError(f"agent {name!r}: priority is {options.priority}; it must be 0 to 9")
    signature = read_signature(handler, name)
    version = _version(name, handler, options)
    return Agent(name, handler, options, signature, inspect.iscoroutinefunction(handler), version)


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
    try:
        source = inspect.getsource(handler)
    except (OSError, TypeError):  # typed in at a prompt, or no function
        source = getattr(handler, "__qualname__", repr(type(handler)))
    return payloads.digest(f"{state_version}:{source}")
