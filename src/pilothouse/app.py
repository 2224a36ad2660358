"""App: what a user's module creates. It knows the agents, and submits runs to the database of the settings."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal, TypedDict, TypeVar, Unpack, overload

from pilothouse import payloads
from pilothouse.clock import from_datetime
from pilothouse.config import load_settings
from pilothouse.control import agents as registered
from pilothouse.control.runs import Request, Submitted, Submitter
from pilothouse.control.schedules import ScheduleCard, check_card, register
from pilothouse.domain.lanes import LANE_ORDER, Lane
from pilothouse.domain.retries import Backoff
from pilothouse.domain.schedules import CatchUp, Overlap
from pilothouse.engine.agent import Agent, AgentOptions, make_agent
from pilothouse.engine.journal import StateMigration
from pilothouse.errors import ConfigError, InvalidInput
from pilothouse.store.database import Database, Transaction, open_database
from pilothouse.store.migrations import ensure_current

H = TypeVar("H", bound=Callable[..., Any])


class AgentArguments(TypedDict, total=False):
    """What `App.agent` takes beside a name; see there."""

    lane: str
    priority: int
    max_attempts: int
    max_losses: int
    timeout_seconds: float
    run_timeout_seconds: float
    backoff: Backoff
    fatal: tuple[type[Exception], ...]
    state_version: int
    migrations: Mapping[int, StateMigration]
    max_running: int
    max_running_per_key: int
    isolation: Literal["none", "process"]
    memory_mb: int
    secrets: tuple[str, ...]


class ScheduleArguments(TypedDict, total=False):
    """What `App.schedule` takes beside name, agent, cron, timezone and input; see there."""

    lane: str
    priority: int
    tenant: str
    catch_up: str
    catch_up_limit: int
    overlap: str


class App:
    """A set of agents under one name. `pilothouse up` finds it by `app = "module:attribute"` in pilothouse.toml."""

    def __init__(self, name: str) -> None:
        if not name:
            raise ConfigError("an App needs a name, for example App('support-desk')")
        self.name = name
        self._agents: dict[str, Agent] = {}
        self._schedules: dict[str, ScheduleCard] = {}
        self._db: Database | None = None
        self._submitter: Submitter | None = None
        self._connecting = asyncio.Lock()

    @property
    def agents(self) -> Mapping[str, Agent]:
        return MappingProxyType(self._agents)

    @overload
    def agent(self, handler: H, /) -> H: ...

    @overload
    def agent(
        self, handler: None = None, /, *, name: str | None = None, **options: Unpack[AgentArguments]
    ) -> Callable[[H], H]: ...

    def agent(self, handler: Any = None, /, *, name: str | None = None, **options: Unpack[AgentArguments]) -> Any:
        """Registers a function as an agent; works with and without arguments.

        `name` defaults to the function's. `lane` (normal) and `priority` (0, of 0 to 9) are defaults of its runs.
        `max_attempts` (3) bounds attempts that end in failure, `max_losses` (5) those lost with their worker.
        `timeout_seconds` bounds one attempt (the setting `attempt_timeout_seconds`), `run_timeout_seconds` the whole
        run from when it is due (no bound). `backoff` says how long to wait between attempts; after an error of a type
        in `fatal` there is none. `state_version` (1) grows when the code cannot go on from the checkpoints of the one
        before; `migrations` maps an older version to the function that makes the next one's results of its results.
        At most `max_running` runs of it run at once, on all workers together, and `max_running_per_key` of those with
        the same `concurrency_key` (no limits); the others stay queued.
        `isolation="process"` gives each attempt a process of its own: a time-out or a cancel kills it, it may hold
        `memory_mb` megabytes (no limit), and of the worker's environment it sees only the variables in `secrets`.
        Raises ConfigError for a name that is taken, types that JSON cannot carry, and options that do not fit.
        """
        if handler is not None:
            self._add(handler, name, options)
            return handler

        def register(function: H) -> H:
            self._add(function, name, options)
            return function

        return register

    def _add(self, handler: Any, name: str | None, options: AgentArguments) -> None:
        chosen = name or str(getattr(handler, "__name__", repr(handler)))
        if chosen in self._agents:
            raise ConfigError(f"App {self.name!r} has two agents named {chosen!r}; give one another name=…")
        self._agents[chosen] = make_agent(chosen, handler, _options(chosen, handler, options))

    def schedule(
        self,
        name: str,
        *,
        agent: str,
        cron: str,
        timezone: str = "UTC",
        input: Any = None,
        **options: Unpack[ScheduleArguments],
    ) -> None:
        """Runs an agent at the instants of a cron expression, in the time of `timezone` (an IANA name).

        `catch_up` says what becomes of fires that were missed while no scheduler ran: "one" (the default) makes up for
        the latest, "all" for the last `catch_up_limit` (10), "none" for none. `overlap` says what a fire does while
        the run of the last one has not ended: "skip" (the default), "allow", or "cancel" that run first.
        Raises ConfigError that names what does not fit.
        """
        if name in self._schedules:
            raise ConfigError(f"App {self.name!r} has two schedules named {name!r}; give one another name")
        card = _schedule_card(name, agent, cron, timezone, input, options)
        check_card(card)
        if agent in self._agents:
            _check_scheduled_input(card, self._agents[agent])
        self._schedules[name] = card

    def register_schedules(self, tx: Transaction) -> None:
        """Makes the schedules known to the database; what the App does not declare any more fires no more."""
        for card in self._schedules.values():
            if card.agent in self._agents:
                _check_scheduled_input(card, self._agents[card.agent])
        register(tx, self.name, list(self._schedules.values()), principal=f"app:{self.name}")

    def only(self, names: Iterable[str]) -> App:
        """The same App with only the agents of these names."""
        part = App(self.name)
        part._agents = {name: self._agents[name] for name in names}
        part._schedules = self._schedules
        return part

    async def submit(
        self,
        agent: str,
        input: Any = None,
        *,
        lane: str | None = None,
        priority: int | None = None,
        at: datetime | None = None,
        idempotency_key: str | None = None,
        tenant: str = "default",
        concurrency_key: str | None = None,
        webhook_url: str | None = None,
    ) -> Submitted:
        """Submits a run to the database of the settings; returns once it is durable.

        `input` is JSON data that fits the agent's types. `at` is an aware datetime before which it does not start.
        The same `idempotency_key` with the same input gives the same run. Runs of one
        `concurrency_key` share the agent's `max_running_per_key` slots. `webhook_url` is told when it has ended.
        Raises NotFound, InvalidInput that names each field, Conflict for a key used with another input.
        """
        submitter = await self._connect()
        return await submitter.submit(
            Request(
                agent=agent,
                input={} if input is None else input,
                principal=f"app:{self.name}",
                lane=lane,
                priority=priority,
                available_at=None if at is None else from_datetime(at),
                idempotency_key=idempotency_key,
                tenant=tenant,
                webhook_url=webhook_url,
                concurrency_key=concurrency_key,
            )
        )

    async def close(self) -> None:
        """Closes the database that `submit` opened."""
        if self._submitter is not None and self._db is not None:
            await self._submitter.close()
            await asyncio.to_thread(self._db.close)
            self._submitter = self._db = None

    async def _connect(self) -> Submitter:
        async with self._connecting:
            if self._submitter is None:
                self._submitter = await self._open()
            return self._submitter

    async def _open(self) -> Submitter:
        settings = load_settings()
        db = open_database(settings.database_url, pool_size=settings.pool_size, direct_url=settings.direct_url)
        await asyncio.to_thread(db.start)
        await asyncio.to_thread(ensure_current, db)
        cards = [agent.card(self.name, settings.attempt_timeout_seconds) for agent in self._agents.values()]
        await db.transaction(lambda tx: registered.register(tx, cards, principal=f"app:{self.name}"))
        self._db = db
        return Submitter(db, settings.queue_limits)


def _schedule_card(
    name: str, agent: str, cron: str, timezone: str, input: Any, options: ScheduleArguments
) -> ScheduleCard:
    values: dict[str, Any] = dict(options)
    try:
        values["catch_up"] = CatchUp(values.get("catch_up", CatchUp.ONE))
        values["overlap"] = Overlap(values.get("overlap", Overlap.SKIP))
        text = payloads.encode({} if input is None else input)
        return ScheduleCard(name, agent, cron, timezone, text, **values)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"schedule {name!r}: {error}; catch_up is none, one or all, overlap is allow, skip or cancel"
        ) from error


def _check_scheduled_input(card: ScheduleCard, agent: Agent) -> None:
    try:
        agent.signature.arguments(agent.name, payloads.decode(card.input))
    except InvalidInput as error:
        raise ConfigError(f"schedule {card.name!r}: {error}") from error


def _options(name: str, handler: Any, given: AgentArguments) -> AgentOptions:
    lane = given.get("lane", Lane.NORMAL)
    if lane not in set(LANE_ORDER):
        raise ConfigError(f"agent {name!r}: lane {lane!r} does not exist; use {', '.join(LANE_ORDER)}")
    values: dict[str, Any] = {**given, "lane": Lane(lane), "description": inspect.getdoc(handler) or ""}
    try:
        return AgentOptions(**values)
    except TypeError as error:
        raise ConfigError(f"agent {name!r}: {error}") from error
