"""`up`, `api`, `worker`, `scheduler`: the long-lived processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, NoReturn

from cyclopts import Parameter
from rich.text import Text

from pilothouse import payloads
from pilothouse.cli.output import AsJson, console, print_json
from pilothouse.cli.session import Schema, prepare_schema
from pilothouse.config import Settings, is_child, load_settings, mask
from pilothouse.domain.samples import sample
from pilothouse.engine.loops import calm_collector, new_runner
from pilothouse.errors import ConfigError, PilothouseError
from pilothouse.platform import ALL_ROLES, Platform, Role, load_app
from pilothouse.telemetry.logs import close_logs, configure_logs, get_logger

if TYPE_CHECKING:
    from pilothouse.app import App

Reference = Annotated[str | None, Parameter(help='The App, as "module:attribute"; pilothouse.toml names it otherwise.')]
Host = Annotated[str | None, Parameter(help="Where the API listens.")]
Port = Annotated[int | None, Parameter(help="The API's port; 0 takes any free one.")]
Announce = Callable[[Platform], None]

ORPHAN_LOOK_SECONDS = 1.0


def up(
    app: Reference = None,
    *,
    host: Host = None,
    port: Port = None,
    reload: Annotated[bool, Parameter(negative="", help="Start again when a source changes.")] = False,
    as_json: AsJson = False,
) -> int:
    """API, worker and scheduler in one process. Creates the database, or brings it up to date."""
    if reload:
        from pilothouse.cli.reload import run_reloading

        return run_reloading()
    settings = load_settings(host=host, port=port)
    _serve(settings, load_app(app, settings), ALL_ROLES, schema="migrate", announce=_announced(_announce_up, as_json))
    return 0


def api(
    *,
    host: Host = None,
    port: Port = None,
    scheduler: Annotated[bool, Parameter(negative="", help="Run the scheduler in the same process.")] = False,
    as_json: AsJson = False,
) -> None:
    """The API alone. It needs no App: agents are known from the database."""
    roles: frozenset[Role] = frozenset({"api", "scheduler"}) if scheduler else frozenset({"api"})
    settings = load_settings(host=host, port=port)
    _serve(settings, None, roles, schema="create", announce=_announced(_announce_api, as_json))


def worker(
    app: Reference = None,
    *,
    lanes: Annotated[str | None, Parameter(help="Slots of each lane, such as critical=4,normal=8,low=2.")] = None,
    shared: Annotated[int | None, Parameter(help="Slots that all lanes share.")] = None,
    agents: Annotated[str | None, Parameter(help="Run only these agents, separated by commas.")] = None,
    processes: Annotated[int, Parameter(help="How many worker processes to run and keep up.")] = 1,
    as_json: AsJson = False,
) -> int:
    """A worker alone, or several. SIGTERM lets what runs finish for the drain time and releases the rest."""
    settings = load_settings(lanes=lanes, shared_slots=shared)
    loaded = _only(load_app(app, settings), agents)
    if processes < 1:
        raise ConfigError(f"--processes is {processes}; it must be at least 1")
    if processes > 1:
        from pilothouse.cli.processes import keep_up

        configure_logs(settings.log_level, settings.log_format, settings.log_destination, settings.log_token)
        return keep_up(processes)
    _serve(settings, loaded, frozenset({"worker"}), schema="create", announce=_announced(_announce_worker, as_json))
    return 0


def scheduler(*, as_json: AsJson = False) -> None:
    """The scheduler alone: reaps vanished workers. Several may run; one leads each chore."""
    announce = _announced(_announce_scheduler, as_json)
    _serve(load_settings(), None, frozenset({"scheduler"}), schema="create", announce=announce)


def _only(app: App, names: str | None) -> App:
    """The App with only some of its agents."""
    if names is None:
        return app
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in app.agents]
    if unknown or not wanted:
        raise ConfigError(
            f"--agents names {', '.join(map(repr, unknown)) or 'no agent'}; "
            f"App {app.name!r} has {', '.join(sorted(app.agents))}"
        )
    return app.only(wanted)


def _serve(settings: Settings, app: App | None, roles: frozenset[Role], *, schema: Schema, announce: Announce) -> None:
    configure_logs(settings.log_level, settings.log_format, settings.log_destination, settings.log_token)
    with new_runner() as runner:
        try:
            runner.run(_serve_until_stopped(Platform(settings, app, roles), schema, announce))
        except (PilothouseError, OSError):  # told in one line; anything else is a bug
            raise
        except Exception:
            get_logger("pilothouse.cli").exception("process.crashed")
            raise
        if asyncio.all_tasks(runner.get_loop()):
            _exit_without_abandoned_handlers()


def _exit_without_abandoned_handlers() -> NoReturn:
    """A handler that swallows every exception cannot be cancelled either; everything of value is written by now."""
    close_logs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


async def _serve_until_stopped(platform: Platform, schema: Schema, announce: Announce) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop_or_exit, stop, number)
    orphaned = asyncio.create_task(_stop_when_orphaned(stop)) if is_child() else None
    async with platform:
        await asyncio.to_thread(prepare_schema, platform.db, schema)
        announce(platform)
        calm_collector()
        await platform.serve(stop)
    if orphaned is not None:
        orphaned.cancel()


async def _stop_when_orphaned(stop: asyncio.Event) -> None:
    """A process whose keeper was killed would go on for ever beside those of the next keeper."""
    while is_child():  # noqa: ASYNC110 - no event tells of it everywhere
        await asyncio.sleep(ORPHAN_LOOK_SECONDS)
    stop.set()


def _stop_or_exit(stop: asyncio.Event, number: int) -> None:
    """The first signal drains; whoever sends a second one does not want to wait."""
    if stop.is_set():
        os._exit(128 + number)
    stop.set()


def _announced(for_people: Announce, as_json: bool) -> Announce:
    return _announce_json if as_json else for_people


def _announce_json(platform: Platform) -> None:
    """What programs need to find the process's work: `url` is where the API really listens."""
    print_json(
        {
            "roles": sorted(platform.roles),
            "url": platform.url if "api" in platform.roles else None,
            "database": mask(platform.settings.database_url),
            "agents": sorted(platform.app.agents) if platform.app else [],
        }
    )


def _announce_up(platform: Platform) -> None:
    _announce_api(platform)
    assert platform.app is not None
    agent = next(iter(platform.app.agents.values()))
    wanted = payloads.encode(sample(payloads.decode(agent.signature.schemas()[0])))
    body = payloads.encode({"agent": agent.name, "input": payloads.decode(wanted)})
    out = console()
    out.print(f"  try         pilothouse submit {agent.name} '{wanted}' --watch", soft_wrap=True)
    header = "-H 'content-type: application/json'"
    out.print(f"  or          curl -s {platform.url}/api/v1/runs {header} -d '{body}'", soft_wrap=True)
    out.print("  stop        Ctrl-C\n", style="dim")


def _announce_api(platform: Platform) -> None:
    out = console()
    out.print(Text.assemble(("Pilothouse is up", "bold green"), " at ", (platform.url, "bold")), soft_wrap=True)
    _announce_database(platform)


def _announce_worker(platform: Platform) -> None:
    assert platform.app is not None
    slots = platform.settings.slots
    console().print(
        Text.assemble(("Worker is up", "bold green"), f" for {', '.join(platform.app.agents)}, {slots.total} slots")
    )
    _announce_database(platform)


def _announce_scheduler(platform: Platform) -> None:
    console().print("Scheduler is up", style="bold green")
    _announce_database(platform)


def _announce_database(platform: Platform) -> None:
    console().print(f"  database    {mask(platform.settings.database_url)}", soft_wrap=True)
