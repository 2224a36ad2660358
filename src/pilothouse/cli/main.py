"""The command `pilothouse`: its tree, and how its errors and exits look."""

from __future__ import annotations

import io
import os
import sys
from typing import NoReturn

from cyclopts import App, CycloptsError

from pilothouse import __version__
from pilothouse.errors import PilothouseError

DEBUG_HINT = "set PILOTHOUSE_DEBUG=1 for its traceback"

USAGE_EXIT, ERROR_EXIT, INTERRUPT_EXIT = 2, 1, 130

TREE: dict[str, tuple[str, dict[str, tuple[str, str]]]] = {
    "runs": (
        "Look at runs, and change what they do.",
        {
            "list": ("runs:list_runs", "The latest runs, newest first."),
            "show": ("runs:show", "Everything that happened to a run."),
            "watch": ("runs:watch", "Follow a run until it has ended."),
            "why": ("runs:why", "Why a run is where it is, and what to do."),
            "cancel": ("runs:cancel", "Cancel a run and what it started."),
            "redrive": ("runs:redrive", "Queue a failed run again."),
            "signal": ("runs:signal", "Send a signal to a run."),
        },
    ),
    "dead": (
        "The dead letters: failed runs that nobody has dealt with.",
        {
            "list": ("dead:list_dead", "The dead letters, newest first."),
            "redrive": ("dead:redrive", "Queue dead letters again, singly or by filter."),
            "dismiss": ("dead:dismiss", "Set dead letters aside, singly or by filter."),
        },
    ),
    "agents": (
        "The agents that workers have registered.",
        {
            "list": ("agents:list_agents", "All agents."),
            "show": ("agents:show", "One agent with its defaults and schemas."),
        },
    ),
    "workers": (
        "The workers, and what they hold.",
        {
            "list": ("workers:list_workers", "Live workers first."),
            "drain": ("workers:drain", "Let a worker finish what runs, claim nothing and exit."),
        },
    ),
    "schedules": (
        "When agents run by themselves.",
        {
            "list": ("schedules:list_schedules", "Every schedule, and when it fires next."),
            "show": ("schedules:show", "One schedule with its policies and next fires."),
            "pause": ("schedules:pause", "Let a schedule fire no more until it is resumed."),
            "resume": ("schedules:resume", "Let a paused schedule fire again."),
            "fire": ("schedules:fire", "Fire a schedule now."),
        },
    ),
    "audit": (
        "Who did what to which row, when and why.",
        {
            "tail": ("audit:tail", "The latest records."),
            "show": ("audit:show", "One record."),
            "verify": ("audit:verify", "Hold the audit against its seals."),
            "export": ("audit:export", "Write the audit and its seals as JSON lines."),
        },
    ),
    "events": ("What happens now.", {"tail": ("audit:tail_events", "Follow every change of state.")}),
    "db": (
        "The database.",
        {
            "migrate": ("db:migrate_schema", "Bring the schema up to date."),
            "status": ("db:status", "Which migrations are applied."),
            "check": ("db:check", "Prove the invariants of the run log."),
            "storage": ("db:storage", "What takes the room."),
        },
    ),
    "keys": (
        "The API keys.",
        {
            "create": ("keys:create", "Make a key; it is shown once."),
            "list": ("keys:list_keys", "Every key, and when it was last used."),
            "revoke": ("keys:revoke", "Let a key open nothing any more."),
        },
    ),
    "config": ("The settings.", {"show": ("settings:show", "Every setting, its value and where it comes from.")}),
}

COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("project:init", "Write a starter project."),
    "up": ("roles:up", "API, worker and scheduler in one process."),
    "api": ("roles:api", "The API alone."),
    "worker": ("roles:worker", "A worker alone, or several."),
    "scheduler": ("roles:scheduler", "The scheduler alone."),
    "demo": ("demo:demo", "The code steward on real sources, with a worker killed midway."),
    "submit": ("submit:submit", "Submit runs."),
    "backup": ("backup:backup", "Copy the whole database into one file."),
    "restore": ("backup:restore", "Write a backup into an empty database, and prove it."),
    "version": ("version:show", "The version of Pilothouse."),
}


def build() -> App:
    """The tree of commands; each is imported when it is called."""
    app = App(name="pilothouse", help="Takes AI agents to production.", version=__version__, help_format="plaintext")
    for name, (target, help_text) in COMMANDS.items():
        app.command(f"pilothouse.cli.{target}", name=name, help=help_text)
    for noun, (help_text, verbs) in TREE.items():
        group = App(name=noun, help=help_text)
        for verb, (target, verb_help) in verbs.items():
            group.command(f"pilothouse.cli.{target}", name=verb, help=verb_help)
        app.command(group)
    return app


def main() -> NoReturn:
    """Runs the command line and exits: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted."""
    _print_what_the_encoding_can()
    try:
        code = build()(exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError as error:
        _tell(
            error,
            f"{' '.join(str(error).split())} See `{' '.join(('pilothouse', *(error.command_chain or ())))} --help`",
        )
        sys.exit(USAGE_EXIT)
    except PilothouseError as error:
        _tell(error, str(error))
        sys.exit(ERROR_EXIT)
    except KeyboardInterrupt:
        sys.exit(INTERRUPT_EXIT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        _tell(error, f"{error.filename or 'the system'}: {error.strerror or error}")
        sys.exit(ERROR_EXIT)
    except Exception as error:  # noqa: BLE001 - nobody should meet a traceback; this one says how to get it
        _tell(error, f"{type(error).__name__}: {error}; this is a bug in Pilothouse, {DEBUG_HINT}")
        sys.exit(ERROR_EXIT)
    sys.exit(code if isinstance(code, int) else 0)


def _print_what_the_encoding_can() -> None:
    """A mark that an old terminal cannot show becomes a question mark, never an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _tell(error: Exception, message: str) -> None:
    from pilothouse.cli.session import wants_traceback

    if wants_traceback():
        raise error
    print(f"error: {message}", file=sys.stderr)
