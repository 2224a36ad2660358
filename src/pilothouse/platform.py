"""The composition root: settings become a database and the roles that this process plays, one by one or together."""

from __future__ import annotations

import asyncio
import importlib
import socket
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Literal, Self

from pilothouse.control import limits
from pilothouse.control.calls import totals
from pilothouse.control.runs import WAKE_RUNS, Submitter
from pilothouse.errors import ConfigError, PilothouseError
from pilothouse.llm import extra
from pilothouse.store.database import Database, Transaction, open_database
from pilothouse.store.redis import Redis
from pilothouse.telemetry.setup import Telemetry

if TYPE_CHECKING:
    import uvicorn

    from pilothouse.app import App
    from pilothouse.config import Settings
    from pilothouse.engine.agent import Agent
    from pilothouse.engine.scheduler import Chore
    from pilothouse.llm.gateway import Gateway
    from pilothouse.llm.script import Responder
    from pilothouse.telemetry.events import Emitter

Role = Literal["api", "worker", "scheduler"]
ALL_ROLES: frozenset[Role] = frozenset({"api", "worker", "scheduler"})

DAY_US = 86_400_000_000
RETENTION_SECONDS = 60.0
"""How often the scheduler looks for what was kept long enough."""

API_CLOSE_SECONDS = 5
"""How long open requests and streams may take to end when the API stops."""


class Platform:
    """The roles of one process on one database. Use it as `async with Platform(...)`, then `serve`."""

    def __init__(self, settings: Settings, app: App | None = None, roles: frozenset[Role] = ALL_ROLES) -> None:
        if "worker" in roles and app is None:
            raise ConfigError(
                'a worker needs an App: name it as "module:attribute", or in pilothouse.toml as app = "…"'
            )
        self.settings = settings
        self.app = app
        self.roles = roles
        self.db: Database = open_database(
            settings.database_url, pool_size=settings.pool_size, direct_url=settings.direct_url
        )
        self.redis = Redis(settings.redis_url) if settings.redis_url else None
        self.submitter = Submitter(self.db, settings.queue_limits)
        self.telemetry = Telemetry(settings, "pilothouse" if app is None else app.name, partial(totals, self.db))
        self._socket: socket.socket | None = None

    async def __aenter__(self) -> Self:
        if "api" in self.roles:
            self._socket = bind(self.settings.host, self.settings.port)
        await asyncio.to_thread(self.db.start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._socket is not None:
            self._socket.close()
        await self.submitter.close()
        await asyncio.to_thread(self.telemetry.close)
        if self.redis is not None:
            await self.redis.close()
        await asyncio.to_thread(self.db.close)

    @property
    def url(self) -> str:
        """Where the API answers; the port is the one that was really bound."""
        assert self._socket is not None
        host = self.settings.host
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{self._socket.getsockname()[1]}"

    async def serve(self, stop: asyncio.Event) -> None:
        """Plays the roles until `stop` is set, then drains: the API goes last, so that people can watch."""
        if "api" in self.roles:
            await self._require_keys_outside()
        try:
            await self._play(stop)
        except BaseExceptionGroup as group:
            ours, _ = group.split(PilothouseError)
            if ours is None:
                raise
            raise ours.exceptions[0] from group

    async def _require_keys_outside(self) -> None:
        """What other machines can reach is served only where keys keep out those who have none."""
        from pilothouse.control import keys
        from pilothouse.web.auth import is_loopback

        host = self.settings.host
        if not is_loopback(host) and not await keys.are_needed(self.db):
            raise ConfigError(
                f"host {host!r} can be reached from other machines, and there is no API key to keep them out; "
                "make one with `pilothouse keys create NAME --role admin`, or use 127.0.0.1"
            )

    async def _play(self, stop: asyncio.Event) -> None:
        roles_done = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            others = []
            if "worker" in self.roles:
                others.append(group.create_task(self._work(stop)))
            if "scheduler" in self.roles:
                others.append(group.create_task(self._schedule(stop)))
            if "api" in self.roles:
                group.create_task(self._serve_api(roles_done))
            if others and "api" not in self.roles:
                await asyncio.wait(others)
            else:
                await stop.wait()
            if others:
                await asyncio.wait(others)
            roles_done.set()

    async def _work(self, stop: asyncio.Event) -> None:
        from pilothouse.control.asking import NOTIFY_AGENT
        from pilothouse.control.breakers import Breakers
        from pilothouse.control.limits import RunLimits
        from pilothouse.control.policies import Policies, Trust
        from pilothouse.control.runaways import Runaways
        from pilothouse.control.switchboard import Switches
        from pilothouse.engine.attempt import Surroundings
        from pilothouse.engine.lease import LeaseTerms
        from pilothouse.engine.patience import patiently
        from pilothouse.engine.secrets import EnvironmentSecrets
        from pilothouse.engine.worker import WorkerOptions, keep_working
        from pilothouse.tools.notices import notice_secrets

        assert self.app is not None
        app, settings = self.app, self.settings
        await patiently(lambda: self.db.transaction(app.register_schedules))
        await patiently(lambda: self.db.transaction(self._adopt_limits))
        options = WorkerOptions(
            app=self.app.name,
            slots=settings.slots,
            terms=LeaseTerms(lease_us=settings.lease_us, renew_seconds=settings.renew_interval_seconds),
            poll_seconds=settings.poll_interval_ms / 1000,
            drain_seconds=settings.drain_seconds,
            attempt_timeout_seconds=settings.attempt_timeout_seconds,
            is_enabled=settings.engine_enabled,
            calendar=settings.calendar,
        )
        agents, emitter = {**app.agents, **self._own_agents()}, self.telemetry.emitter
        gateway = make_gateway(self.db, settings, emitter, redis=self.redis)
        uses_models = gateway is not None and (settings.routes or settings.offline_model)
        preload = ("pydantic_ai.models",) if uses_models else ()
        trust = Trust({name: agent.version.fingerprint for name, agent in agents.items()}, settings.new_agent_level)
        around = Surroundings(
            gateway,
            EnvironmentSecrets({**settings.secrets, **notice_secrets(NOTIFY_AGENT)}),
            Breakers(self.db),
            preload,
            RunLimits(self.db),
            Policies(self.db, settings.rulebook(app.policies), trust, settings.calendar),
            settings.channels,
            Switches(self.db),
            Runaways(self.db, settings.runaway_rule),
            self.telemetry.trace_share,
        )
        try:
            await keep_working(self.db, agents, options, emitter, stop, around)
        finally:
            await app.close_tools()
            if gateway is not None:
                await gateway.close()

    def _adopt_limits(self, tx: Transaction) -> None:
        assert self.app is not None
        limits.adopt(tx, self.settings.limits, principal="settings")
        self.app.register_limits(tx)

    def _own_agents(self) -> dict[str, Agent]:
        """The agents that Pilothouse brings along."""
        agents = []
        if self.settings.webhook_secret is not None:
            from pilothouse.engine.webhooks import make_delivery_agent

            agents.append(make_delivery_agent(self.db, self.settings.webhook_secret))
        if self.settings.every_channel:
            from pilothouse.engine.notify import Post, make_notify_agent
            from pilothouse.tools.notices import notice_tools

            post = Post(notice_tools(self.settings), self.settings.base_url, self.settings.approval_secret)
            agents.append(make_notify_agent(self.db, post))
        return {agent.name: agent for agent in agents}

    async def _schedule(self, stop: asyncio.Event) -> None:
        from pilothouse.control import history
        from pilothouse.control.erasures import carry_on_all
        from pilothouse.control.retention import Pruner
        from pilothouse.control.seals import Sealer
        from pilothouse.engine.janitor import Janitor
        from pilothouse.engine.scheduler import Chore, Scheduler

        emitter = self.telemetry.emitter
        janitor = Janitor(self.db, emitter, lease_seconds=self.settings.lease_us / 1_000_000)
        interval = self.settings.chore_interval_ms / 1000
        chores = [
            janitor.chore(interval),
            Chore("schedules", interval, self._fire_schedules),
            Chore("approvals", interval, self._pass_deadlines),
            Chore("seal", interval, Sealer(self.db).seal),
            Chore("autonomy", interval, lambda: self._watch_autonomy(emitter)),
            Chore("erasures", interval, partial(carry_on_all, self.db)),
            Chore("history", history.SAMPLE_SECONDS, partial(history.sample, self.db)),
        ]
        pruner = Pruner(
            self.db,
            _kept_us(self.settings.retention_days),
            _kept_us(self.settings.audit_retention_days),
            _kept_us(self.settings.history_days),
        )
        chores.append(Chore("retention", RETENTION_SECONDS, pruner.prune))
        chores.append(self._alerting(emitter))
        await Scheduler(self.db, chores, emitter).run(stop)

    def _alerting(self, emitter: Emitter) -> Chore:
        from pilothouse.control.alert_notices import Delivery
        from pilothouse.control.alerting import Alerting
        from pilothouse.engine.scheduler import Chore

        settings = self.settings
        delivery = Delivery(settings.told_channels, settings.alert_severity, settings.alert_messages)
        kept_us = _kept_us(settings.retention_days)
        rules, level = settings.alert_rules, settings.new_agent_level
        alerting = Alerting(self.db, rules, settings.calendar, delivery, emitter, kept_us, level)
        return Chore("alerts", settings.alert_interval_seconds, alerting.evaluate, on_outage=alerting.away)

    async def _fire_schedules(self) -> None:
        from pilothouse.control import schedules

        if await self.db.transaction(lambda tx: schedules.fire_due(tx, principal="system:scheduler")):
            self.db.notify(WAKE_RUNS)

    async def _watch_autonomy(self, emitter: Emitter) -> None:
        """Moves the stability plans on, and tells of agents whose confidence means nothing any more."""
        from pilothouse.control import calibration, stability
        from pilothouse.telemetry.events import CalibrationOff, StabilityMoved

        for moved in await stability.advance_plans(self.db):
            emitter.emit(StabilityMoved(moved.agent, moved.state, moved.stage, moved.reason))
        for row in await calibration.untold(self.db):
            emitter.emit(CalibrationOff(row["agent"], row["error"]))

    async def _pass_deadlines(self) -> None:
        from pilothouse.control import asking

        await asking.pass_deadlines(self.db, self.settings.channels, principal="system:approvals")

    async def _serve_api(self, stop: asyncio.Event) -> None:
        import uvicorn

        from pilothouse.web.server import create_server

        assert self._socket is not None
        api = create_server(self.db, self.submitter, self.settings, stop, self.redis)
        config = uvicorn.Config(
            api,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=API_CLOSE_SECONDS,
            h11_max_incomplete_event_size=65_536,
        )
        server = uvicorn.Server(config)
        server.capture_signals = _no_signals  # type: ignore[method-assign]  # ours set `stop`, which stops this too
        stopper = asyncio.create_task(_stop_server(server, stop))
        await server.serve(sockets=[self._socket])
        stopper.cancel()


def make_gateway(
    db: Database,
    settings: Settings,
    emitter: Emitter,
    responders: Mapping[str, Responder] | None = None,
    redis: Redis | None = None,
) -> Gateway | None:
    """A worker's way to models; None where the extra `llm` is not installed. `responders` answer for offline models."""
    if not extra.is_installed():
        return None
    from pilothouse.control.breakers import Breakers
    from pilothouse.control.buckets import Buckets
    from pilothouse.control.ledger import Ledger
    from pilothouse.control.model_answers import ModelAnswers
    from pilothouse.control.redis_answers import RedisAnswers
    from pilothouse.control.redis_buckets import RedisBuckets
    from pilothouse.llm.gateway import BudgetSettings, Gateway, GatewaySettings
    from pilothouse.llm.turns import Shared

    budgets = BudgetSettings(settings.cache_at, settings.degrade_at, settings.degrade_route)
    told = GatewaySettings(settings.routes, settings.providers, settings.prices, settings.offline_model, budgets)
    ledger = Ledger(db, settings.calendar)
    if redis is None:
        shared = Shared(Breakers(db), Buckets(db), ModelAnswers(db), ledger)
    else:
        shared = Shared(Breakers(db), RedisBuckets(db, redis), RedisAnswers(db, redis), ledger)
    return Gateway(told, shared, db.clock, emitter, responders)


def _kept_us(days: float) -> int | None:
    """In microseconds; 0 days stand for ever."""
    return int(days * DAY_US) if days else None


@contextmanager
def _no_signals() -> Iterator[None]:
    yield


async def _stop_server(server: uvicorn.Server, stop: asyncio.Event) -> None:
    await stop.wait()
    server.should_exit = True


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ConfigError where the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio switches off Nagle's delay; without it each answer can take 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"port {port} on {host} cannot be used: {error.strerror}; choose another with --port, or --port 0 for any"
        ) from error
    listening.listen(1024)
    return listening


def load_app(reference: str | None, settings: Settings) -> App:
    """The App named `module:attribute`. Raises ConfigError with the place in the user's code that broke."""
    chosen = reference or settings.app
    if not chosen:
        raise ConfigError(
            'no App is named: pass it as "module:attribute", or set app = "agents:app" in pilothouse.toml '
            "(`pilothouse init NAME` makes a project that has one)"
        )
    module_name, _, attribute = chosen.partition(":")
    module = _import(module_name, chosen)
    app = getattr(module, attribute or "app", None)
    from pilothouse.app import App

    if not isinstance(app, App):
        raise ConfigError(
            f"{chosen!r} is {'missing' if app is None else f'a {type(app).__name__}'} in {module.__file__}; "
            f"an App is wanted there, for example {attribute or 'app'} = App({module_name!r})"
        )
    if not app.agents:
        raise ConfigError(f"App {app.name!r} in {module.__file__} has no agents; decorate a function with @app.agent")
    app.check()
    return app


def _import(module_name: str, chosen: str) -> ModuleType:
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(module_name)
    except ConfigError:
        raise
    except ModuleNotFoundError as error:
        if error.name == module_name.partition(".")[0]:
            raise ConfigError(f"App {chosen!r}: there is no module {module_name!r} in {folder}") from error
        raise ConfigError(f"App {chosen!r} does not import: {_place(error)}") from error
    except ImportError as error:
        hides_a_package = error.name == module_name  # agents.py does, when it imports the OpenAI Agents SDK
        advice = f"; {module_name}.py hides a package that it imports: rename the file" if hides_a_package else ""
        raise ConfigError(f"App {chosen!r} does not import: {_place(error)}{advice}") from error
    except (Exception, SystemExit) as error:  # whatever the user's module raises is told as theirs
        raise ConfigError(f"App {chosen!r} does not import: {_place(error)}") from error


def _place(error: BaseException) -> str:
    """The error and the last line of user code that it came from."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: {error.msg}"
    where = f" at {frames[-1].filename}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {error}{where}"
