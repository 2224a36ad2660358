"""`monitoring`: what Prometheus and Grafana need."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.text import Text

from pilothouse.cli.output import AT_LEAST_ONE, AsJson, console, print_json
from pilothouse.errors import ConfigError

FOLDER = "monitoring"
USE = {
    "prometheus.yml": "prometheus --config.file={path}",
    "pilothouse.rules.yml": "alert rules; prometheus.yml names them",
    "grafana.json": "in Grafana: Dashboards, New, Import",
}
TARGET, INTERVAL = "127.0.0.1:8000", "15s"
"""What the file in the package says."""


def write(
    folder: Annotated[Path, Parameter(help="Where to; it is made.")] = Path(FOLDER),
    *,
    target: Annotated[str, Parameter(help="HOST:PORT of an API process.")] = TARGET,
    every_seconds: Annotated[int, Parameter(help="How often Prometheus asks.", validator=AT_LEAST_ONE)] = 15,
    overwrite: Annotated[bool, Parameter(negative="", help="Replace files that are there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a configuration and alert rules for Prometheus, and a dashboard for Grafana."""
    if '"' in target or "/" in target or ":" not in target:
        raise ConfigError(f"{target!r} is no HOST:PORT; say where an API process listens, such as {TARGET}")
    paths = {name: folder / name for name in USE}
    there = [str(path) for path in paths.values() if path.exists()]
    if there and not overwrite:
        raise ConfigError(f"{', '.join(there)} would be replaced; say so with --overwrite, or name another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, path in paths.items():
            text = files("pilothouse.telemetry").joinpath(FOLDER, name).read_text(encoding="utf-8")
            if name == "prometheus.yml":
                text = text.replace(TARGET, target).replace(INTERVAL, f"{every_seconds}s")
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}") from error
    if as_json:
        return print_json({"folder": str(folder), "files": sorted(USE)})
    out = console()
    for name, path in paths.items():
        out.print(Text.assemble((str(path), "bold"), "   ", (USE[name].format(path=path), "dim")), soft_wrap=True)
    return None
