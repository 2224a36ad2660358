"""`init`: a starter project."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.text import Text

from pilothouse.cli.output import AsJson, console, print_json
from pilothouse.errors import ConfigError

STARTER = "starter"
NAME = re.compile(r"[\w.-]+")
"""It goes into source code, and into commands to type."""

PLACEHOLDER = "PROJECT_NAME"
RENAMED = {"gitignore": ".gitignore", "agents.template": "agents.py"}
"""Files that are kept here under another name."""


def init(name: Annotated[str, Parameter(help="The folder to make.")], *, as_json: AsJson = False) -> None:
    """Write a starter project: settings, one agent, and what to type next."""
    folder = Path(name)
    if not NAME.fullmatch(folder.resolve().name):
        raise ConfigError(f"{name!r} cannot be a project's name; use letters, digits, '.', '_' and '-'")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists and is not an empty folder; choose another name")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for source in files("pilothouse.cli").joinpath(STARTER).iterdir():
            text = source.read_text(encoding="utf-8").replace(PLACEHOLDER, folder.resolve().name)
            (folder / RENAMED.get(source.name, source.name)).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}") from error
    if as_json:
        return print_json({"folder": str(folder), "files": sorted(path.name for path in folder.iterdir())})
    out = console()
    out.print(Text.assemble((f"{folder} is ready", "bold green"), ". Next:"))
    out.print(f"  cd {folder}\n  pilothouse up", soft_wrap=True)
    command = '  pilothouse submit hello \'{"name": "Ada"}\' --watch'
    out.print(Text.assemble(command, ("   # elsewhere", "dim")), soft_wrap=True)
    return None
