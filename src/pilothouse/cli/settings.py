"""`config show`: every setting, its value and where it comes from."""

from __future__ import annotations

from pilothouse.cli import output
from pilothouse.cli.output import AsJson
from pilothouse.config import describe_settings, environment_names

IN_ENVIRONMENT = "in the environment"


def show(*, as_json: AsJson = False) -> None:
    """Every setting, its value and where it comes from; passwords are masked."""
    shown = describe_settings()
    if as_json:
        return output.print_json([setting._asdict() for setting in shown])
    made = output.table("setting", ("value", "fold"), "from", IN_ENVIRONMENT)
    for setting in shown:
        made.add_row(setting.name, setting.value, setting.source, environment_names(setting.name)[0])
    return output.print_table(made, empty="", spare=(IN_ENVIRONMENT,))
