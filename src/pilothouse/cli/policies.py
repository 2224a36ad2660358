"""`policy`: list, explain, test."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich.text import Text

from pilothouse import payloads
from pilothouse.cli import output
from pilothouse.cli.output import AsJson
from pilothouse.clock import SystemClock, to_datetime
from pilothouse.config import Settings, load_settings
from pilothouse.control import policies as verbs
from pilothouse.control.policy_cases import Outcome, read_cases, run_cases
from pilothouse.domain.policies import Decision, Facts, Proposal, Rulebook
from pilothouse.errors import FieldError, InvalidInput

STYLES = {"allow": "green", "ask": "yellow", "deny": "bold red"}
AppName = Annotated[
    str | None, Parameter(name="--app", help='The App whose policies in Python count too, as "module:attribute".')
]


def list_policies(*, app: AppName = None, as_json: AsJson = False) -> None:
    """Every rule that speaks of an action, and the version of them all."""
    told = verbs.describe(_rulebook(app))
    if as_json:
        return output.print_json(told)
    made = output.table("policy", "from", ("rule", "fold"), ("reason", "fold"))
    for row in told["items"]:
        made.add_row(row["name"], row["kind"].replace("_", " "), row["rule"], row["reason"])
    output.print_table(made, empty="no policies", spare=("from",))
    return output.console().print(f"version {told['version']}", style="dim")


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The action, and the facts around it."""

    agent: Annotated[str, Parameter(help="Who acts.")] = "agent"
    action: Annotated[str, Parameter(name=["--action", "--tool"], help="The tool or the approval.")]
    kind: Annotated[Literal["tool", "approval"], Parameter(help="Which of the two it is.")] = "tool"
    effect: Annotated[str, Parameter(help="What the tool does to the world.")] = "write"
    platform: Annotated[str | None, Parameter(help="The service that it acts on.")] = None
    amount: Annotated[float, Parameter(name=["--amount", "--amount-usd"], help="What it costs, in dollars.")] = 0.0
    billing: Annotated[Literal["none", "one_time", "recurring"], Parameter(help="How it is charged.")] = "none"
    people: Annotated[int, Parameter(help="How many people it affects.")] = 0
    risk: Annotated[int, Parameter(help="Its risk tier, 0 to 4.")] = 0
    data_class: Annotated[str | None, Parameter(help="What kind of data it touches.")] = None
    tenant: Annotated[str, Parameter(help="For whom.")] = "default"
    arguments: Annotated[str, Parameter(help="Its arguments, JSON.")] = "{}"
    irreversible: Annotated[bool, Parameter(negative="", help="It cannot be undone.")] = False
    by_model: Annotated[bool, Parameter(negative="", help="A model chose it.")] = False
    first_time: Annotated[bool, Parameter(negative="", help="The agent has never done it.")] = False
    confidence: Annotated[float | None, Parameter(help="How sure the agent is, 0 to 1.")] = None
    autonomy: Annotated[Literal["supervised", "assisted", "autonomous"], Parameter(help="How far it is trusted.")] = (
        "assisted"
    )
    at: Annotated[datetime | None, Parameter(help="When, with a time zone; now unless given.")] = None


def explain(asked: Asked, *, app: AppName = None, as_json: AsJson = False) -> None:
    """What would become of an action: the verdict, and what each rule that applies says."""
    book = _rulebook(app)
    told = verbs.explain(book, _proposal(asked), _facts(asked))
    if as_json:
        return output.print_json(told)
    out = output.console()
    out.print(Text.assemble((told["decision"], STYLES[told["decision"]]), f"  {asked.action}  {_terms(told)}"))
    for reason in told["reasons"]:
        line = Text.assemble("  ", (f"{reason['decision']:<6}", STYLES[reason["decision"]]), f"{reason['rule']:<14}")
        out.print(line.append(f" {reason['text']}"), soft_wrap=True)
    if not told["reasons"]:
        out.print("  no rule is against it")
    return out.print(f"policies {told['version']}", style="dim")


def check_cases(
    file: Annotated[Path, Parameter(help="The cases: TOML or YAML.")], *, app: AppName = None, as_json: AsJson = False
) -> int:
    """Hold the policies against a file of cases; exits with 1 where one comes out otherwise than expected.

    A case has a `name`, a `proposal`, maybe `facts`, and what it expects: `verdict`, maybe `quorum`, `reviewer` and
    `rules`, the names of those that must have spoken.
    """
    outcomes = run_cases(_rulebook(app), read_cases(file))
    failed = [each for each in outcomes if not each.holds]
    if as_json:
        output.print_json([_told_outcome(each) for each in outcomes])
    else:
        _print_outcomes(outcomes)
    return 1 if failed else 0


def _print_outcomes(outcomes: list[Outcome]) -> None:
    made = output.table("", ("case", "fold"), "expected", "verdict", ("because", "fold"))
    for each in outcomes:
        mark = Text("✓", style="green") if each.holds else Text("✗", style="bold red")
        verdict = Text(each.verdict.decision, style=STYLES[each.verdict.decision])
        because = each.verdict.told if each.holds else "; ".join(each.problems)
        made.add_row(mark, each.name, each.expected, verdict, because)
    output.print_table(made, empty="no cases")
    failed = [each.name for each in outcomes if not each.holds]
    told = f"{len(failed)} of {len(outcomes)} cases failed: {', '.join(failed)}" if failed else "all cases hold"
    output.console().print(told, style="bold red" if failed else "green", soft_wrap=True)


def _told_outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "name": outcome.name,
        "holds": outcome.holds,
        "problems": outcome.problems,
        "expected": outcome.expected,
        "verdict": verbs.told(outcome.verdict),
    }


def _rulebook(app: str | None) -> Rulebook:
    """The policies of the settings, and of the App where one is named there or here."""
    settings: Settings = load_settings()
    if app is None and settings.app is None:
        return settings.rulebook()
    from pilothouse.platform import load_app

    return settings.rulebook(load_app(app, settings).policies)


def _terms(told: dict[str, Any]) -> str:
    if told["decision"] != Decision.ASK:
        return ""
    who = "senior reviewer" if told["reviewer"] == "admin" else "reviewer"
    people = f"1 {who}" if told["quorum"] == 1 else f"{told['quorum']} different people"
    hours = told["deadline_hours"]
    return people if hours is None else f"{people}, within {hours:g} h, then it is {told['on_deadline']}"


def _proposal(asked: Asked) -> Proposal:
    try:
        arguments = payloads.decode(asked.arguments)
    except ValueError as error:
        told = f"--arguments is not JSON: {error}"
        raise InvalidInput(told, [FieldError("arguments", told)]) from error
    if asked.risk not in range(5):
        raise InvalidInput(f"--risk is {asked.risk}; a tier is 0 to 4", [FieldError("risk", "0 to 4")])
    return Proposal(
        agent=asked.agent,
        action=asked.action,
        kind=asked.kind,
        effect=asked.effect,
        platform=asked.platform,
        arguments=arguments,
        amount_usd=asked.amount,
        billing=asked.billing,
        people_affected=asked.people,
        risk=asked.risk,
        data_class=asked.data_class,
        is_reversible=not asked.irreversible,
        tenant=asked.tenant,
        called_by="model" if asked.by_model else "code",
    )


def _facts(asked: Asked) -> Facts:
    moment = asked.at or to_datetime(SystemClock().now_us())
    now = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return Facts(now, asked.first_time, asked.confidence, asked.autonomy)
