"""The command `pilothouse`: its tree, and how its errors and exits look."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from cyclopts import App, CycloptsError, Group, MissingArgumentError

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
            "suspend": ("agents:suspend", "Hold an agent: its runs stay queued, and stop before their next effect."),
            "resume": ("agents:resume", "Let a suspended agent go on."),
            "autonomy": ("autonomy:show", "How much agents may do on their own, and what is missing for more."),
            "promote": ("autonomy:promote", "Let an action do more on its own."),
            "demote": ("autonomy:demote", "Take autonomy away."),
            "score": ("autonomy:score", "Report scores of an agent's latest runs."),
            "calibration": ("calibration:show", "What an agent says of its chances, against what came of it."),
        },
    ),
    "switch": (
        "Kill switches: stop effects and claims at once.",
        {
            "list": ("switches:list_switches", "The tripped switches."),
            "trip": ("switches:trip", "Stop everything of a scope."),
            "reset": ("switches:reset", "Let what a switch has stopped go on."),
        },
    ),
    "stability": (
        "Plans that let an agent go in seven days, stage by stage.",
        {
            "start": ("stability:start", "Begin a plan with its first stage."),
            "status": ("stability:list_plans", "Every plan: its stage, and what it is judged by."),
            "report": ("stability:report", "Each criterion of a plan with the figures it was judged by."),
            "stop": ("stability:stop", "End a plan without a verdict."),
        },
    ),
    "workers": (
        "The workers, and what they hold.",
        {
            "list": ("workers:list_workers", "Live workers first."),
            "drain": ("workers:drain", "Let a worker finish what runs, claim nothing and exit."),
        },
    ),
    "effects": (
        "Calls that change the world.",
        {
            "list": ("effects:list_effects", "Those of unknown outcome first, then the newest."),
            "show": ("effects:show", "One effect with its exact arguments and what is asked about it."),
            "resolve": ("effects:resolve", "Say whether an effect of unknown outcome took place."),
        },
    ),
    "incident": (
        "Bad actions, their siblings, and what was done about them.",
        {
            "open": ("incidents:open_incident", "Report a bad action and find its siblings."),
            "list": ("incidents:list_incidents", "The latest incidents, newest first."),
            "show": ("incidents:show", "One incident with its effects and corrections."),
            "correct": ("incidents:correct", "Record what was done about one of its effects."),
            "close": ("incidents:close", "Close an incident."),
            "case": ("incidents:case", "Its run as a regression case."),
        },
    ),
    "alerts": (
        "What Pilothouse alerts of, and who is told.",
        {
            "list": ("alerts:list_alerts", "What fires, the gravest first."),
            "show": ("alerts:show", "One alert, who was told of it, and what to do."),
            "rules": ("alerts:rules", "Every rule with its threshold, and what it measures now."),
            "acknowledge": ("alerts:acknowledge", "Say that you look after an alert."),
            "accept": ("alerts:accept", "Say that what an agent does now is usual from now on."),
            "silence": ("alerts:silence", "Send no messages of some alerts for a while."),
            "silences": ("alerts:silences", "The silences that hold now."),
            "unsilence": ("alerts:unsilence", "End a silence."),
            "test": ("alerts:send_test", "Send a test message to a channel."),
        },
    ),
    "approvals": (
        "What waits for a person's decision.",
        {
            "list": ("approvals:list_approvals", "What waits for a person, the newest first."),
            "show": ("approvals:show", "One approval with everything that there is to decide on."),
            "approve": ("approvals:approve", "Say yes, maybe to edited arguments."),
            "reject": ("approvals:reject", "Say no, and why."),
            "revise": ("approvals:revise", "Send it back to the agent with what to change."),
            "delegate": ("approvals:delegate", "Let somebody else decide."),
        },
    ),
    "policy": (
        "The policies: what needs a person, and what is denied.",
        {
            "list": ("policies:list_policies", "Every rule, and the version of them all."),
            "explain": ("policies:explain", "What would become of an action, and why."),
            "test": ("policies:check_cases", "Hold the policies against a file of cases."),
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
    "budget": (
        "What may be spent, and what was.",
        {
            "list": ("budgets:list_budgets", "Every limit as it stands, and when it will be used up."),
            "set": ("budgets:set_budget", "Set a limit, or lift it."),
            "grant": ("budgets:grant", "Let a run use more, and go on."),
            "explain": ("budgets:explain", "Every limit that applies to a run."),
            "unsettled": ("budgets:unsettled", "Reservations that nobody has settled."),
            "settle": ("budgets:settle", "Say what a call has cost."),
        },
    ),
    "cost": (
        "What models and tools have cost.",
        {
            "report": ("costs:report", "Costs by agent, version, model, tenant, day, user, tool or platform."),
            "reprice": ("costs:reprice", "Book what newer prices change."),
            "reconcile": ("costs:reconcile", "Compare the ledger with a provider's export."),
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
    "events": ("What happens now.", {"tail": ("events:tail", "Follow every change of state, or every typed event.")}),
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
    "tenants": (
        "The tenants, and what there is of each.",
        {
            "list": ("tenants:list_tenants", "Every tenant, its runs and when it was last active."),
            "show": ("tenants:show", "One tenant, table by table."),
            "export": ("tenants:export", "Write everything of a tenant as JSON lines."),
            "erase": ("tenants:erase", "Erase everything of a tenant, for good."),
        },
    ),
    "workflow": (
        "Workflows: agents in YAML.",
        {
            "check": ("workflows:check", "Check a workflow: every mistake with its line and column."),
            "graph": ("workflows:graph", "Draw a workflow."),
            "schema": ("workflows:schema", "Print the JSON Schema of workflows, for editors."),
            "import": ("workflows:import_file", "Turn a file of configurable-agents into a workflow."),
        },
    ),
    "monitoring": (
        "What Prometheus and Grafana need.",
        {"write": ("monitoring:write", "Write alert rules for Prometheus and a dashboard for Grafana.")},
    ),
    "profile": (
        "Where time and money go: `profile RUN`, or `profile report`.",
        {
            "run": ("profiles:run", "Where the time and money of one run went."),
            "report": ("profiles:report", "Where time and money went in the runs of a period."),
        },
    ),
    "runbook": (
        "What to do when something is wrong, step by step.",
        {
            "list": ("runbooks:list_runbooks", "Every runbook, and when it is for."),
            "show": ("runbooks:show", "A runbook, whole."),
            "run": ("runbooks:run", "Go through a runbook step by step."),
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
    "fake-provider": ("fake_provider:fake_provider", "A model provider for tests and trials."),
    "submit": ("submit:submit", "Submit runs."),
    "status": ("status:show", "Whether Pilothouse can do its work now, and if not, why."),
    "top": ("top:top", "What is going on now, live."),
    "diagnose": ("diagnose:diagnose", "Collect what is needed to say what is wrong into one archive."),
    "profile-report": ("profiles:report", "The same as `profile report`."),
    "backup": ("backup:backup", "Copy the whole database into one file."),
    "restore": ("backup:restore", "Write a backup into an empty database, and prove it."),
    "version": ("version:show", "The version of Pilothouse."),
}


GROUPS = {
    "First steps": ("init", "up", "submit", "status", "top", "demo"),
    "Work": ("runs", "dead", "agents", "workflow", "schedules", "workers"),
    "Money": ("budget", "cost", "tenants"),
    "Permission and stops": ("approvals", "policy", "stability", "effects", "incident", "switch"),
    "Finding out": ("events", "audit", "alerts", "runbook", "profile", "profile-report", "diagnose", "monitoring"),
    "One role each": ("api", "worker", "scheduler"),
    "Administration": ("db", "backup", "restore", "keys", "config", "fake-provider", "version"),
}
"""How `pilothouse --help` shows the commands: in the order in which people come to need them."""

VERB_UNLESS_NAMED = {"profile": "run"}
"""The verb of a noun that is followed by something else: `profile RUN`."""


def spelled_out(words: Sequence[str]) -> list[str]:
    """The words with the verb that was left out."""
    noun, *rest = words or [""]
    verb = VERB_UNLESS_NAMED.get(noun)
    if verb is None or not rest or rest[0].startswith("-") or rest[0] in TREE[noun][1]:
        return list(words)
    return [noun, verb, *rest]


def build() -> App:
    """The tree of commands; each is imported when it is called."""
    app = App(name="pilothouse", help="Takes AI agents to production.", version=__version__, help_format="plaintext")
    for number, (title, names) in enumerate(GROUPS.items()):
        group = Group(title, sort_key=number)
        for place, name in enumerate(names):
            _add(app, name, group, place)
    app["--help"].group = app["--version"].group = Group("Options", sort_key=len(GROUPS))
    return app


def _add(app: App, name: str, group: Group, place: int) -> None:
    if name in COMMANDS:
        target, help_text = COMMANDS[name]
        app.command(f"pilothouse.cli.{target}", name=name, help=help_text, group=group, sort_key=place)
        return
    help_text, verbs = TREE[name]
    noun = App(name=name, help=help_text, group=group, sort_key=place)
    for verb, (target, verb_help) in verbs.items():
        noun.command(f"pilothouse.cli.{target}", name=verb, help=verb_help)
    app.command(noun)


def main() -> NoReturn:
    """Runs the command line and exits: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted."""
    _print_what_the_encoding_can()
    try:
        code = answered(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(INTERRUPT_EXIT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(code)


def answered(words: Sequence[str]) -> int:
    """Runs one command, tells what went wrong, and returns its exit code. An interrupt and a closed pipe go on up."""
    as_json = "--json" in words
    try:
        code = build()(spelled_out(words), exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        chain = " ".join(("pilothouse", *(error.command_chain or ())))
        _tell(error, f"{_usage_told(error)} See `{chain} --help`", "usage", as_json=as_json)
        return USAGE_EXIT
    except PilothouseError as error:
        _tell(error, str(error), error.code, as_json=as_json)
    except BrokenPipeError:
        raise
    except OSError as error:
        _tell(error, f"{error.filename or 'the system'}: {error.strerror or error}", "system", as_json=as_json)
    except Exception as error:  # noqa: BLE001 - nobody should meet a traceback; this one says how to get it
        told = f"{type(error).__name__}: {error}; this is a bug in Pilothouse, {DEBUG_HINT}"
        _tell(error, told, "internal_error", as_json=as_json)
    else:
        return code if isinstance(code, int) else 0
    return ERROR_EXIT


def _usage_told(error: CycloptsError) -> str:
    """What is missing is named with what it is for: the library says that it requires an argument."""
    argument = error.argument if isinstance(error, MissingArgumentError) and error.keyword is None else None
    if argument is None:
        return " ".join(str(error).split())
    is_option = argument.field_info.kind is argument.field_info.KEYWORD_ONLY
    name = " or ".join(argument.names) if is_option else argument.names[0].removeprefix("--").upper()
    return f"{name} is missing: {argument.parameter.help or 'it has to be given'}"


def _print_what_the_encoding_can() -> None:
    """A mark that an old terminal cannot show becomes a question mark, never an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _tell(error: Exception, message: str, code: str, *, as_json: bool) -> None:
    """One line on standard error: words for people, with `--json` an object for programs."""
    from pilothouse.cli.session import wants_traceback

    if wants_traceback():
        raise error
    if as_json:
        print(json.dumps({"error": code, "message": message}), file=sys.stderr)
        return
    from pilothouse.cli.safe import safe

    print(f"error: {safe(message)}", file=sys.stderr)
