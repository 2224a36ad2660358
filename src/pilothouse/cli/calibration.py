"""`agents calibration`: what an agent says of its chances, against what people decided."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from pilothouse.cli import output
from pilothouse.cli.output import AsJson
from pilothouse.cli.session import run
from pilothouse.config import load_settings
from pilothouse.control import calibration as verbs

BAR = 20


def show(name: Annotated[str, Parameter(help="The agent's name.")], *, as_json: AsJson = False) -> None:
    """Stated confidence against outcomes, by bucket, the error, and the threshold that comes of it."""
    threshold = load_settings().confidence_auto_threshold
    found = run(lambda db: verbs.show_calibration(db, name, threshold=threshold))
    if as_json:
        return output.print_json(found)
    made = output.table(
        "confidence",
        ("actions", "right"),
        ("stated", "right"),
        ("approved", "right"),
        ("taken as", "right"),
        "approved",
    )
    for bucket in found["buckets"]:
        if bucket["count"]:
            span = f"{bucket['low']:.1f} to {bucket['high']:.1f}"
            rates = (f"{bucket[rate]:.2f}" for rate in ("stated", "observed", "calibrated"))
            made.add_row(span, str(bucket["count"]), *rates, "█" * round(bucket["observed"] * BAR))
    output.print_table(made, empty="no decided action of this agent has stated a confidence")
    return output.console().print(output.facts(_facts(found)))


def _facts(found: dict[str, Any]) -> list[tuple[str, object]]:
    error = found["calibration_error"]
    told = (
        "not measured, too few decided actions" if error is None else f"{error:.1%}, limit {found['error_limit']:.0%}"
    )
    lifted = f", lifted from {found['threshold']:.2f}" if found["is_off"] else ""
    return [
        ("decided", f"{found['decided']} actions, the latest that stated a confidence"),
        ("error", told),
        ("by chance alone", f"{found['error_by_chance']:.1%}"),
        ("threshold", f"{found['effective_threshold']:.2f}{lifted}"),
    ]
