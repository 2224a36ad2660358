"""App: what a user's module creates. It knows the agents, and submits runs to the database of the settings."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar, Unpack, cast, overload

from pilothouse import payloads
from pilothouse.clock import from_datetime
from pilothouse.config import load_settings
from pilothouse.config.environment import ambient_traceparent
from pilothouse.control import agents as registered
from pilothouse.control import limits
from pilothouse.control.runs import Request, Submitted, Submitter
from pilothouse.control.schedules import ScheduleCard, check_card, register
from pilothouse.domain.effects import Effect
from pilothouse.domain.lanes import LANE_ORDER, Lane
from pilothouse.domain.policies import PolicyFunction, name_of
from pilothouse.domain.retries import Backoff, RetryPolicy
from pilothouse.domain.schedules import CatchUp, Overlap
from pilothouse.domain.windows import Window
from pilothouse.engine.agent import Agent, AgentOptions, make_agent
from pilothouse.engine.journal import StateMigration
from pilothouse.engine.tools import MARK, Tool, Toolbox, ToolFacts, ToolOptions, ToolSource, make_tool
from pilothouse.errors import ConfigError, InvalidInput
from pilothouse.store.database import Database, Transaction, open_database
from pilothouse.store.migrations import ensure_current

if TYPE_CHECKING:
    from pilothouse.agents.workflow.definition import Workflow

H = TypeVar("H", bound=Callable[..., Any])
P = TypeVar("P", bound=PolicyFunction)


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
    model: str
    window: Window
    autonomy: Literal["supervised"]
    max_cost_usd: float
    max_tokens: int
    max_tool_calls: int
    max_work_seconds: int


class ToolArguments(ToolFacts, total=False):
    """What `App.tool` takes beside a name; see there."""

    idempotent: bool
    verify: Callable[..., Any]
    timeout_seconds: float | None
    retry: RetryPolicy


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
        self._toolbox = Toolbox()
        self._workflows: list[Workflow] = []
        self._schedules: dict[str, ScheduleCard] = {}
        self._policies: list[PolicyFunction] = []
        self._db: Database | None = None
        self._submitter: Submitter | None = None
        self._connecting = asyncio.Lock()

    @property
    def agents(self) -> Mapping[str, Agent]:
        return MappingProxyType(self._agents)

    @property
    def tools(self) -> tuple[str, ...]:
        """The names of the registered tools."""
        return self._toolbox.names

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
        `model` is the route or the model that `ctx.llm` asks unless told otherwise; `window` keeps conversations short.
        `autonomy="supervised"` lets each new version ask before it changes the world, until it has earned more.
        One run may use `max_cost_usd` dollars, `max_tokens`, `max_tool_calls` and `max_work_seconds` (what the settings
        say for every run); an operator may set other limits.
        Raises ConfigError for a name that is taken, types that JSON cannot carry, and options that do not fit.
        """
        if handler is not None:
            self._add(handler, name, options)
            return handler

        def register(function: H) -> H:
            self._add(function, name, options)
            return function

        return register

    def add_workflow(self, path: str | Path, /, *, name: str | None = None) -> None:
        """Registers the workflow of a YAML file as an agent, under its own name unless `name` is given.

        A relative path counts from the working directory. Tools and Python functions that it names must be there.
        Raises WorkflowError, a ConfigError, with file, line and column of everything that is wrong.
        """
        from pilothouse.agents.workflow.definition import load_workflow
        from pilothouse.agents.workflow.handler import agent_options, make_handler

        workflow = load_workflow(path)
        self._workflows.append(workflow)
        self._add(make_handler(workflow), name or workflow.spec.name, cast(AgentArguments, agent_options(workflow)))

    def check(self) -> None:
        """Looks whether the workflows fit the tools and agents that are registered. Raises WorkflowError."""
        for workflow in self._workflows:
            self.check_workflow(workflow)

    def check_workflow(self, workflow: Workflow, /) -> None:
        """Looks whether the tools and agents that a workflow names are registered and take the arguments that it gives.

        Raises WorkflowError with the place of each that does not.
        """
        from pilothouse.agents.workflow.checks import Surroundings, check_surroundings

        tools = {tool.name: tool.schema for tool in self._toolbox}
        agents = {name: payloads.decode(agent.signature.schemas()[0]) for name, agent in self._agents.items()}
        check_surroundings(workflow, Surroundings(tools, agents, self._toolbox.sources))

    def add_agent(
        self,
        agent: Any,
        /,
        *,
        name: str | None = None,
        deps: Any = None,
        effects: Mapping[str, str | ToolFacts] | None = None,
        **options: Unpack[AgentArguments],
    ) -> None:
        """Registers an agent of a framework, as it is. Its input is `{"prompt": "…", "context": {…}}`.

        Takes an `Agent` of Pydantic AI (extra `llm`) or of the OpenAI Agents SDK (extra `openai-agents`), and a graph
        of LangGraph (extra `langgraph`), whose input is the graph's own. Model requests go through the gateway and
        tool calls become steps, so that what has been answered or done is not asked or done again. `name` defaults to
        the agent's. `deps` are the agent's, or a function that makes them of the run's context. `effects` says of the
        agent's tools, by name, what a call does to the world, as `effect` of `tool` does, or in a dictionary what
        policies look at too: `effect`, `platform`, `cost_usd`, `risk`, `amount`, `people`, `confidence`, `billing`,
        `data_class`. `options` are those of `agent`; `model` puts a route in the place of the agent's own model.
        Raises ConfigError for an object that no adapter knows, for models that no gateway can stand in for, and for
        what is said of a tool and cannot be.
        """
        from pilothouse.agents.frameworks import adapt

        chosen, handler = adapt(agent, name, deps, effects=effects or {}, has_route="model" in options)
        self._add(handler, chosen, options)

    def add_program(
        self,
        name: str,
        command: Sequence[str],
        /,
        *,
        folder: str | Path | None = None,
        **options: Unpack[AgentArguments],
    ) -> None:
        """Registers a program as an agent: any code that uses OpenAI's or Anthropic's client, without a change to it.

        Each attempt runs `command` in `folder`, with the input as JSON on standard input and what it prints as the
        output. `OPENAI_BASE_URL`, `ANTHROPIC_BASE_URL` and their keys lead to the gateway, for this run only; answers
        that an earlier attempt has paid for are given again. Of the worker's environment it sees the variables in
        `secrets`. What else the program does is done anew by every attempt.
        Raises ConfigError for a command that is no list.
        """
        from pilothouse.agents.program import Program, make_handler

        others = options.copy()
        program = Program(command, None if folder is None else Path(folder), others.pop("secrets", ()))
        self._add(make_handler(name, program), name, others)

    def _add(self, handler: Any, name: str | None, options: AgentArguments) -> None:
        chosen = name or str(getattr(handler, "__name__", repr(handler)))
        if chosen in self._agents:
            raise ConfigError(f"App {self.name!r} has two agents named {chosen!r}; give one another name=…")
        self._agents[chosen] = make_agent(chosen, handler, _options(chosen, handler, options), self._toolbox)

    @overload
    def tool(self, function: H, /) -> H: ...

    @overload
    def tool(
        self, function: None = None, /, *, name: str | None = None, **options: Unpack[ToolArguments]
    ) -> Callable[[H], H]: ...

    def tool(self, function: Any = None, /, *, name: str | None = None, **options: Unpack[ToolArguments]) -> Any:
        """Registers a function as a tool, which agents call by `ctx.tool` and models by its name.

        `name` defaults to the function's. `effect` says what a call does to the world: "pure", "read", "idempotent",
        "write" (the default) or "irreversible". `platform` names the service it acts on, `cost_usd` what one call
        costs. `idempotent` says that a call may be sent again with the same `effect_key`, a parameter that the function
        may take. `verify` takes the same arguments and tells whether the call has taken place. `timeout_seconds` (60)
        bounds each try; `retry` says how often and on which errors to try again (never).
        What policies look at: `risk` is a tier from 0 to 4, `amount` the name of the argument that is an amount in
        dollars, `people` of the one that says how many people are affected (or lists them), `confidence` of the one by
        which the caller says how sure it is (0 to 1), `billing` "one_time" or "recurring", `data_class` what kind of
        data it touches.
        A parameter `Annotated[str, Secret("NAME")]` is filled from the secrets of the settings.
        Raises ConfigError for a name that is taken, types that JSON cannot carry, and options that do not fit.
        """
        if function is not None:
            return self._add_tool(function, name, options)
        return lambda given: self._add_tool(given, name, options)

    def add_tool(self, tool: Tool | ToolSource, /) -> None:
        """Registers a tool that comes along (`pilothouse.tools`), or an MCP server as a source of tools.

        Raises ConfigError for a name that is taken.
        """
        if isinstance(tool, Tool):
            self._toolbox.add(tool)
        else:
            self._toolbox.add_source(tool)

    async def close_tools(self) -> None:
        """Closes the connections of tool sources."""
        await self._toolbox.close()

    def _add_tool(self, function: H, name: str | None, options: ToolArguments) -> H:
        tool = make_tool(function, name, _tool_options(name or repr(function), options))
        self._toolbox.add(tool)
        with suppress(AttributeError):  # a bound method carries no mark of its own; it is found by its name
            setattr(function, MARK, tool)
        return function

    @property
    def policies(self) -> tuple[PolicyFunction, ...]:
        """The policies in Python."""
        return tuple(self._policies)

    def policy(self, function: P, /) -> P:
        """Registers a policy: a pure function of a proposal and its facts that returns a Verdict, or None.

        It is asked before every call of a tool that changes the world or costs money, and at every `ctx.approve`,
        beside the rules of pilothouse.toml; the strictest verdict of all wins. One that fails asks a person.
        Raises ConfigError for a name that is taken, and for a coroutine function.
        """
        name = name_of(function)
        if inspect.iscoroutinefunction(function):
            raise ConfigError(f"policy {name!r} is async; a policy is a plain function that waits for nothing")
        if name in map(name_of, self._policies):
            raise ConfigError(f"App {self.name!r} has two policies named {name!r}; give one another name")
        self._policies.append(function)
        return function

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

    def register_limits(self, tx: Transaction) -> None:
        """Makes known to the database what one run of each agent may use."""
        declared = [limit for name, agent in self._agents.items() for limit in agent.options.limits(name)]
        limits.adopt_of_agents(tx, self._agents, declared, principal=f"app:{self.name}")

    def only(self, names: Iterable[str]) -> App:
        """The same App with only the agents of these names."""
        part = App(self.name)
        part._agents = {name: self._agents[name] for name in names}
        part._schedules = self._schedules
        part._toolbox = self._toolbox
        part._policies = self._policies
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
        user: str | None = None,
        webhook_url: str | None = None,
    ) -> Submitted:
        """Submits a run to the database of the settings; returns once it is durable.

        `input` is JSON data that fits the agent's types. `at` is an aware datetime before which it does not start.
        The same `idempotency_key` with the same input gives the same run. Runs of one
        `concurrency_key` share the agent's `max_running_per_key` slots. `user` is for whom it works, so that limits per
        user count what it spends. `webhook_url` is told when it has ended.
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
                user_id=user,
                traceparent=ambient_traceparent(),
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


def _refuse_unknown(what: str, given: Mapping[str, object], options: type) -> None:
    """Raises ConfigError for an option that does not exist."""
    known = options.__annotations__
    for option in given:
        if option not in known:
            near = get_close_matches(option, known, n=1, cutoff=0.5)
            meant = f"did you mean {near[0]!r}?" if near else f"use {', '.join(known)}"
            raise ConfigError(f"{what} has no option {option!r}; {meant}")


def _tool_options(name: str, given: ToolArguments) -> ToolOptions:
    _refuse_unknown(f"tool {name}", given, ToolArguments)
    values: dict[str, Any] = dict(given)
    try:
        values["effect"] = Effect(values.get("effect", Effect.WRITE))
        return ToolOptions(**values)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"tool {name}: {error}; effect is one of {', '.join(Effect)}") from error


def _options(name: str, handler: Any, given: AgentArguments) -> AgentOptions:
    _refuse_unknown(f"agent {name!r}", given, AgentArguments)
    lane = given.get("lane", Lane.NORMAL)
    if lane not in set(LANE_ORDER):
        raise ConfigError(f"agent {name!r}: lane {lane!r} does not exist; use {', '.join(LANE_ORDER)}")
    values: dict[str, Any] = {**given, "lane": Lane(lane), "description": inspect.getdoc(handler) or ""}
    try:
        return AgentOptions(**values)
    except TypeError as error:
        raise ConfigError(f"agent {name!r}: {error}") from error
