"""`agents autonomy`, `promote`, `demote`, `score`: how much agents may do on their own."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from pilothouse.cli import output
from pilothouse.cli.output import AsJson
from pilothouse.cli.session import principal, run
from pilothouse.config import load_settings
from pilothouse.control import autonomy as verbs
from pilothouse.control.autonomy import LevelChange
from pilothouse.control.views import view
from pilothouse.domain.autonomy import ANY, Level

Name = Annotated[str, Parameter(help="The agent's name.")]
Action = Annotated[str, Parameter(help="The action: a tool's name, or that of an approval.")]
Version = Annotated[str | None, Parameter(help="The beginning of a version's fingerprint; else the registered one.")]
To = Annotated[Level | None, Parameter(help="The level.")]

SHOWN_FINGERPRINT = 8


def show(name: Annotated[str | None, Parameter(help="Only this agent.")] = None, *, as_json: AsJson = False) -> None:
    """How much each agent's version may do on its own, by action, and what is missing for more."""
    default = load_settings().new_agent_level
    rows = [view(row) for row in run(lambda db: verbs.list_autonomy(db, name, default=default))]
    if as_json:
        return output.print_json(rows)
    made = output.table(
        "agent",
        "version",
        "action",
        "level",
        ("decided", "right"),
        ("approved", "right"),
        ("at least", "right"),
        ("calibration", "right"),
        ("missing for more", "fold"),
    )
    for row in rows:
        version = row["fingerprint"][:SHOWN_FINGERPRINT]
        missing = "; ".join(row["missing"]) or ("nothing: promote it" if _may_rise(row) else "")
        made.add_row(row["agent"], version, row["action"], row["level"], *_figures(row["evidence"]), missing)
    return output.print_table(
        made, empty="no agents; a worker registers its own when it starts", spare=("version", "calibration")
    )


def _may_rise(row: dict[str, Any]) -> bool:
    return row["evidence"] is not None and row["level"] != Level.AUTONOMOUS


def _figures(evidence: dict[str, Any] | None) -> tuple[str, str, str, str]:
    if evidence is None:
        return "", "", "", ""
    rate, error = evidence["approval_rate"], evidence["calibration_error"]
    return (
        str(evidence["decided"]),
        "" if rate is None else f"{rate:.1%}",
        f"{evidence['lower_bound']:.1%}",
        "not measured" if error is None else f"{error:.1%} off",
    )


def promote(name: Name, *, action: Action, to: To = None, version: Version = None, as_json: AsJson = False) -> None:
    """Let an action of an agent do more on its own: one level, or up to the one named. Needs evidence."""
    asked, default = LevelChange(name, action, to, version), load_settings().new_agent_level
    _tell(run(lambda db: verbs.promote(db, asked, default=default, principal=principal())), as_json)


def demote(
    name: Name,
    *,
    action: Action = ANY,
    to: To = None,
    version: Version = None,
    reason: Annotated[str, Parameter(help="Why, for the audit.")] = "demoted by hand",
    as_json: AsJson = False,
) -> None:
    """Take autonomy away from an action, or from all of a version: back to supervised, unless a level is named."""
    asked, default = LevelChange(name, action, to, version), load_settings().new_agent_level
    _tell(run(lambda db: verbs.demote(db, asked, reason=reason, default=default, principal=principal())), as_json)


def _tell(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.print_json(view(row))
        return
    what = "every action" if row["action"] == ANY else row["action"]
    version = row["fingerprint"][:SHOWN_FINGERPRINT]
    output.console().print(f"agent {row['agent']}, version {version}: {what} is {row['level']}", soft_wrap=True)


def score(
    name: Name,
    *scores: Annotated[float, Parameter(help="Scores of the latest runs, in order of time.")],
    baseline: Annotated[float, Parameter(help="What they are held against.")],
    as_json: AsJson = False,
) -> None:
    """Report scores of an agent's latest runs: five in a row below the baseline return it to supervised."""
    default = load_settings().new_agent_level
    is_demoted = run(
        lambda db: verbs.report_scores(db, name, scores, baseline=baseline, default=default, principal=principal())
    )
    if as_json:
        output.print_json({"agent": name, "demoted": is_demoted})
    else:
        told = "it was returned to supervised" if is_demoted else "its levels stay"
        output.console().print(f"agent {name}: {len(scores)} scores are noted; {told}", soft_wrap=True)
