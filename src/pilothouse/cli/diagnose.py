"""`diagnose`: one archive for whoever is to find out what is wrong."""

from __future__ import annotations

import asyncio
import os
import platform
import re
import socket
from collections.abc import Iterator
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from pilothouse import __version__
from pilothouse.cli import output
from pilothouse.cli.output import AsJson
from pilothouse.cli.session import open_session, principal
from pilothouse.clock import SystemClock, isoformat, to_datetime
from pilothouse.config import Settings, describe_settings, known_secrets, load_settings
from pilothouse.control import bundles
from pilothouse.control.bundles import Bundle, Entry
from pilothouse.domain.hiding import Hiding
from pilothouse.errors import PilothouseError

LOG_BYTES = 2_000_000
"""Of each log, its end."""

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
README = """What Pilothouse {version} knew of itself at {at} (UTC), on {host}.

Secrets that it knows of, and what looks like one, are left out: *** stands for them. No input, output or prompt of a
run is here, and no text of a run's error. Logs hold what agents and tools have logged: look through them before you
hand this on.

contents.json says what each file is, how long it took to read, and what could not be had.
"""

clock = SystemClock()


def diagnose(
    *,
    to: Annotated[Path | None, Parameter(help="The archive, or a folder for it; named after the moment.")] = None,
    logs: Annotated[
        list[Path] | None, Parameter(name="--log", negative="", help="A log of another process, to put in as well.")
    ] = None,
    quick: Annotated[
        bool, Parameter(negative="", help="Leave out what takes long on a large database: invariants and sizes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Collect logs, settings, versions, queue, workers, alerts, slow statements and invariants into one archive.

    Secrets are taken out. It is made even if the settings are wrong or the database does not answer, and says so.
    """
    path = _path(to)
    settings, problem = _settings()
    with bundles.writing(path, Hiding(known_secrets(settings)), clock) as bundle:
        _add_own(bundle, settings, problem)
        _add_logs(bundle, settings, logs or [])
        if settings is None:
            bundle.add_problem("database", "what the database knows", "the settings do not say where it is")
        else:
            _add_database(bundle, settings, quick=quick)
        entries = list(bundle.entries)
        bundle.add_json("contents.json", "this list", _contents(entries))
    _tell(path, entries, as_json=as_json)


def _path(to: Path | None) -> Path:
    name = f"pilothouse-{to_datetime(clock.now_us()):%Y%m%d-%H%M%S}.tar.gz"
    if to is None:
        return Path(name)
    return to / name if to.is_dir() else to


def _settings() -> tuple[Settings | None, str | None]:
    try:
        return load_settings(), None
    except PilothouseError as error:
        return None, str(error)


def _add_own(bundle: Bundle, settings: Settings | None, problem: str | None) -> None:
    """What needs no database."""
    at = isoformat(clock.now_us())
    bundle.add_log("README.txt", "what this is", README.format(version=__version__, at=at, host=socket.gethostname()))
    bundle.add_json("versions.json", "versions of Pilothouse, its libraries and the machine", _versions(at))
    if settings is None:
        bundle.add_problem("settings.json", "the settings", problem or "they cannot be read")
    else:
        bundle.add_json(
            "settings.json", "the settings, and where each comes from", [each._asdict() for each in describe_settings()]
        )


def _versions(at: str) -> dict[str, Any]:
    return {
        "pilothouse": __version__,
        "at": at,
        "by": principal(),
        "host": socket.gethostname(),
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
        "libraries": dict(_libraries()),
    }


def _libraries() -> Iterator[tuple[str, str]]:
    """What Pilothouse needs, or can make use of, and is installed."""
    try:
        needed = metadata.requires("pilothouse") or []
    except metadata.PackageNotFoundError:
        return
    for name in sorted({found[0] for each in needed if (found := _NAME.match(each))}):
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue


def _add_logs(bundle: Bundle, settings: Settings | None, more: list[Path]) -> None:
    own = settings.log_files if settings else []
    if not own:
        destination = settings.log_destination if settings else "stderr"
        told = f"they go to {destination}: `journalctl -u pilothouse-worker`, `docker logs`, `kubectl logs`"
        bundle.add_problem("logs", "the logs", f"{told}, or the log server; add files with --log")
    for number, path in enumerate((*own, *more), start=1):
        name = f"logs/{number}-{path.name}"
        try:
            bundle.add_log(name, f"the end of {path}", _end_of(path))
        except OSError as error:
            bundle.add_problem(name, f"the end of {path}", f"{path} cannot be read: {error.strerror or error}")


def _end_of(path: Path) -> str:
    """The last lines, the first of them whole."""
    if not path.is_file():
        raise FileNotFoundError(2, "it is no file")
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - LOG_BYTES))
        text = file.read(LOG_BYTES).decode("utf-8", "replace")
    return text if size <= LOG_BYTES else text.partition("\n")[2]


def _add_database(bundle: Bundle, settings: Settings, *, quick: bool) -> None:
    try:
        with open_session(settings) as db:
            asyncio.run(bundles.add_parts(bundle, db, settings, quick=quick))
    except PilothouseError as error:
        bundle.add_problem("database", "what the database knows", f"the database cannot be reached: {error}")


def _contents(entries: list[Entry]) -> dict[str, Any]:
    return {"version": __version__, "files": [asdict(each) for each in entries]}


def _tell(path: Path, entries: list[Entry], *, as_json: bool) -> None:
    size = path.stat().st_size
    problems = [each for each in entries if each.problem]
    if as_json:
        contents = [asdict(each) for each in entries if not each.problem]
        told = [{"name": each.name, "problem": each.problem} for each in problems]
        return output.print_json({"file": str(path), "bytes": size, "contents": contents, "problems": told})
    out = output.console()
    made = output.table("file", ("size", "right"), ("took", "right"), ("what", "fold"))
    for each in entries:
        if not each.problem:
            made.add_row(each.name, output.size(each.bytes), _took(each), each.what)
    output.print_table(made, empty="", spare=("took", "size"))
    for each in problems:
        out.print(f"\n{each.name}: {each.problem}", style="yellow", soft_wrap=True)
    out.print(f"\n{path} ({output.size(size)}) holds all of it, known secrets taken out.", soft_wrap=True)
    return out.print("Look through its logs before you hand it on.", style="dim", soft_wrap=True)


def _took(entry: Entry) -> str:
    return output.seconds(entry.seconds) if entry.seconds else ""
