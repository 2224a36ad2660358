"""`policy`: list, explain, test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter, validators
from rich.text import Text

from pilothouse import payloads
from pilothouse.cli import output
from pilothouse.cli.output import AsJson
from pilothouse.clock import SystemClock, to_datetime
from pilothouse.config import Settings, load_settings
from pilothouse.control import policies as verbs
from pilothouse.control.policy_cases import Outcome, read_cases, run_cases
from pilothouse.domain.effects import Effect
from pilothouse.domain.policies import Billing, Decision, Facts, Proposal, Rulebook
from pilothouse.engine.permission import Declared, propose, stated_confidence
from pilothouse.errors import FieldError, InvalidInput

DECLARED = (
    "effect",
    "platform",
    "amount_usd",
    "billing",
    "people_affected",
    "risk",
    "data_class",
    "is_reversible",
)
"""What a tool of the App says of itself, as a proposal has it."""

COUNT = validators.Number(gte=0)
ELSE = "Else as the App declares the tool."
STYLES = {"allow": "green", "ask": "yellow", "deny": "bold red"}
AppName = Annotated[
    str | None, Parameter(name="--app", help='The App whose policies in Python count too, as "module:attribute".')
]


def list_policies(*, app: AppName = None, as_json: AsJson = False) -> None:
    """Every rule that speaks of an action, and the version of them all."""
    told = verbs.describe(_load(app).book)
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
    effect: Annotated[Effect | None, Parameter(help=f"What it does to the world. {ELSE}")] = None
    platform: Annotated[str | None, Parameter(help=f"The service that it acts on. {ELSE}")] = None
    amount: Annotated[
        float | None, Parameter(name=["--amount", "--amount-usd"], help="What it costs, in dollars.", validator=COUNT)
    ] = None
    billing: Annotated[Billing | None, Parameter(help=f"How it is charged. {ELSE}")] = None
    people: Annotated[int | None, Parameter(help="How many people it affects.", validator=COUNT)] = None
    risk: Annotated[
        int | None, Parameter(help=f"Its risk tier, 0 to 4. {ELSE}", validator=validators.Number(gte=0, lte=4))
    ] = None
    data_class: Annotated[str | None, Parameter(help=f"What kind of data it touches. {ELSE}")] = None
    tenant: Annotated[str, Parameter(help="For whom.")] = "default"
    arguments: Annotated[str, Parameter(help="Its arguments, JSON.")] = "{}"
    irreversible: Annotated[bool, Parameter(negative="", help="It cannot be undone.")] = False
    by_model: Annotated[bool, Parameter(negative="", help="A model chose it.")] = False
    first_time: Annotated[bool, Parameter(negative="", help="The agent has never done it.")] = False
    confidence: Annotated[
        float | None, Parameter(help="How sure the agent is, 0 to 1.", validator=validators.Number(gte=0, lte=1))
    ] = None
    autonomy: Annotated[Literal["supervised", "assisted", "autonomous"], Parameter(help="How far it is trusted.")] = (
        "assisted"
    )
    at: Annotated[datetime | None, Parameter(help="When, with a time zone; now unless given.")] = None


def explain(asked: Asked, *, app: AppName = None, as_json: AsJson = False) -> None:
    """What would become of an action: the verdict, and what each rule that applies says."""
    known = _load(app)
    arguments = _arguments(asked.arguments)
    proposal = _proposal(asked, arguments, known)
    told = verbs.explain(known.book, proposal, _facts(asked, arguments, known))
    if as_json:
        return output.print_json(told)
    out = output.console()
    out.print(Text.assemble((told["decision"], STYLES[told["decision"]]), f"  {asked.action}  {_terms(told)}"))
    for reason in told["reasons"]:
        line = Text.assemble("  ", (f"{reason['decision']:<6}", STYLES[reason["decision"]]), f"{reason['rule']:<14}")
        out.print(line.append(f" {reason['text']}"), soft_wrap=True)
    if not told["reasons"]:
        out.print("  no rule is against it")
    out.print(f"looked at {_looked_at(proposal)}", style="dim", soft_wrap=True)
    if known.tools and asked.kind == "tool" and asked.action not in known.tools:
        out.print(f"the App has no tool {asked.action!r}; it has {', '.join(sorted(known.tools))}", style="yellow")
    return out.print(f"policies {told['version']}", style="dim")


def _looked_at(proposal: Proposal) -> str:
    """What the verdict rests on, beside the facts; so that nobody takes it for one on another call."""
    parts = [
        proposal.kind if proposal.kind == "approval" else f"a tool of effect {proposal.effect}",
        f"platform {proposal.platform}" if proposal.platform else "",
        f"risk tier {proposal.risk}",
        f"{proposal.amount_usd:,.2f} USD",
        f"billing {proposal.billing}" if proposal.billing != "none" else "",
        f"{proposal.people_affected:,} people" if proposal.people_affected else "",
        f"data of class {proposal.data_class!r}" if proposal.data_class else "",
    ]
    return ", ".join(part for part in parts if part)


def check_cases(
    file: Annotated[Path, Parameter(help="The cases: TOML or YAML.")], *, app: AppName = None, as_json: AsJson = False
) -> int:
    """Hold the policies against a file of cases; exits with 1 where one comes out otherwise than expected.

    A case has a `name`, a `proposal`, maybe `facts`, and what it expects: `verdict`, maybe `quorum`, `reviewer` and
    `rules`, the names of those that must have spoken.
    """
    known = _load(app)
    outcomes = run_cases(known.book, read_cases(file, known.declares))
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


@dataclass(frozen=True, slots=True)
class Known:
    """The policies of the settings, and of the App where one is named there or here; and the tools of that App."""

    book: Rulebook
    tools: Mapping[str, Declared]

    def declares(self, tool: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """What the App says of a call, as fields of a proposal."""
        if tool not in self.tools:
            return {}
        proposal = propose(self.tools[tool], dict(arguments), "")
        return {name: getattr(proposal, name) for name in DECLARED}


def _load(app: str | None) -> Known:
    settings: Settings = load_settings()
    if app is None and settings.app is None:
        return Known(settings.rulebook(), {})
    from pilothouse.engine.tool_calls import declared
    from pilothouse.platform import load_app

    loaded = load_app(app, settings)
    tools = {tool.name: declared(tool) for agent in loaded.agents.values() for tool in agent.toolbox}
    return Known(settings.rulebook(loaded.policies), tools)


def _terms(told: dict[str, Any]) -> str:
    if told["decision"] != Decision.ASK:
        return ""
    who = "senior reviewer" if told["reviewer"] == "admin" else "reviewer"
    people = f"1 {who}" if told["quorum"] == 1 else f"{told['quorum']} different people"
    hours = told["deadline_hours"]
    then = {"wait": "it still waits", "escalate": "senior reviewers are asked", "expire": "it expires"}
    return people if hours is None else f"{people}; after {hours:g} h {then[told['on_deadline']]}"


def _arguments(text: str) -> dict[str, Any]:
    try:
        value = payloads.decode(text)
    except ValueError as error:
        told = f"--arguments is not JSON: {error}"
        raise InvalidInput(told, [FieldError("arguments", told)]) from error
    if not isinstance(value, dict):
        told = "--arguments is a JSON object of all arguments"
        raise InvalidInput(told, [FieldError("arguments", told)])
    return value


def _proposal(asked: Asked, arguments: dict[str, Any], known: Known) -> Proposal:
    """As the App declares the tool, where the command does not say otherwise."""
    said = {
        "effect": asked.effect,
        "platform": asked.platform,
        "amount_usd": asked.amount,
        "billing": asked.billing,
        "people_affected": asked.people,
        "risk": asked.risk,
        "data_class": asked.data_class,
        "is_reversible": False if asked.irreversible or asked.effect is Effect.IRREVERSIBLE else None,
    }
    declared = known.declares(asked.action, arguments) if asked.kind == "tool" else {}
    return Proposal(
        agent=asked.agent,
        action=asked.action,
        kind=asked.kind,
        arguments=arguments,
        tenant=asked.tenant,
        called_by="model" if asked.by_model else "code",
        **{**declared, **{name: value for name, value in said.items() if value is not None}},
    )


def _facts(asked: Asked, arguments: dict[str, Any], known: Known) -> Facts:
    moment = asked.at or to_datetime(SystemClock().now_us())
    now = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    confidence = asked.confidence
    if confidence is None and asked.kind == "tool" and asked.action in known.tools:
        confidence = stated_confidence(known.tools[asked.action], arguments)
    return Facts(now, asked.first_time, confidence, asked.autonomy)
