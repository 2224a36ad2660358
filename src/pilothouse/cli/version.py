"""`version`: which Pilothouse this is."""

from __future__ import annotations

from pilothouse import __version__
from pilothouse.cli.output import AsJson, print_json


def show(*, as_json: AsJson = False) -> None:
    """The version of Pilothouse."""
    if as_json:
        print_json({"version": __version__})
    else:
        print(__version__)
