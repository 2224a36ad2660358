"""`submit`: one run from JSON, or many from a file of JSON lines."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from cyclopts import CycloptsError, Parameter
from rich.progress import Progress
from rich.text import Text

from pilothouse import payloads
from pilothouse.cli import output
from pilothouse.cli.output import AsJson
from pilothouse.cli.session import principal, run
from pilothouse.cli.watching import follow
from pilothouse.clock import from_datetime, new_id
from pilothouse.control.runs import MAX_BATCH, Request, Submitted, Submitter
from pilothouse.errors import ConfigError, FieldError, InvalidInput
from pilothouse.store.database import Database

REFUSALS_SHOWN = 10
SHELL_HINT = """quote it for the shell, as in '{"name": "Ada"}'"""


@dataclass(frozen=True, slots=True)
class _Tally:
    """How a file of runs went."""

    submitted: int
    known: int
    refused: list[tuple[int, str]]


def submit(
    agent: Annotated[str, Parameter(help="The agent's name.")],
    input: Annotated[
        str | None, Parameter(help="JSON, @FILE, or - for standard input; {} otherwise.", allow_leading_hyphen=True)
    ] = None,
    *,
    lane: Annotated[str | None, Parameter(help="critical, normal or low; the agent's own otherwise.")] = None,
    priority: Annotated[int | None, Parameter(help="0 to 9; higher goes first within the lane.")] = None,
    at: Annotated[str | None, Parameter(help="Not before this instant, ISO 8601 with time zone.")] = None,
    idempotency_key: Annotated[str | None, Parameter(help="The same key and input give the same run.")] = None,
    tenant: Annotated[str, Parameter(help="Whose run it is.")] = "default",
    concurrency_key: Annotated[str | None, Parameter(help="Runs of one key share the agent's slots per key.")] = None,
    user: Annotated[str | None, Parameter(help="For whom it works; limits per user count what it spends.")] = None,
    webhook_url: Annotated[str | None, Parameter(help="Told by a signed POST when the run has ended.")] = None,
    jsonl: Annotated[Path | None, Parameter(help="Submit one run per line of this file instead.")] = None,
    watch: Annotated[bool, Parameter(negative="", help="Follow the run until it has ended.")] = False,
    as_json: AsJson = False,
) -> int:
    """Submit a run, or with --jsonl many. Exits with 1 if one was refused, or with --watch if it did not succeed."""
    template = Request(
        agent=agent,
        input=None,
        principal=principal(),
        lane=lane,
        priority=priority,
        available_at=_instant(at),
        idempotency_key=idempotency_key,
        tenant=tenant,
        webhook_url=webhook_url,
        concurrency_key=concurrency_key,
        user_id=user,
    )
    if jsonl is not None:
        if input is not None or watch:
            raise CycloptsError(msg="--jsonl takes its inputs from the file; leave out INPUT and --watch.")
        return run(lambda db: _submit_file(db, template, jsonl, as_json=as_json))
    request = replace(template, input=_parse(_read(input or "{}"), "the input"))
    return run(lambda db: _submit_one(db, request, watch=watch, as_json=as_json))


def _submitter(db: Database) -> Submitter:
    from pilothouse.config import load_settings

    return Submitter(db, load_settings().queue_limits)


async def _submit_one(db: Database, request: Request, *, watch: bool, as_json: bool) -> int:
    submitter = _submitter(db)
    submitted = await submitter.submit(request)
    await submitter.close()
    if as_json:
        output.print_json({"id": submitted.id, "state": submitted.state, "created": submitted.is_new})
    else:
        told = "is queued" if submitted.is_new else f"was there already, {submitted.state}"
        output.console().print(Text.assemble("run ", (submitted.id, "bold"), f" {told}"), soft_wrap=True)
    return await follow(db, submitted.id, as_json=as_json) if watch else 0


async def _submit_file(db: Database, template: Request, path: Path, *, as_json: bool) -> int:
    """Batches from a file; each line has its own answer. With an idempotency key, line N has the key KEY:N."""
    submitter = _submitter(db)
    submitted = known = 0
    refused: list[tuple[int, str]] = []
    size = _size(path)
    with Progress(console=output.errors(), disable=as_json, transient=True) as progress:
        bar = progress.add_task(f"submitting {path.name}", total=size)
        with path.open("rb") as file:
            for batch in _batches(enumerate(file, start=1)):
                requests, broken = _requests(template, batch)
                refused += broken
                for number, answer in zip(requests, await submitter.submit_batch(list(requests.values())), strict=True):
                    if isinstance(answer, Submitted):
                        submitted, known = submitted + answer.is_new, known + (not answer.is_new)
                    else:
                        refused.append((number, str(answer)))
                progress.update(bar, completed=file.tell())
    await submitter.close()
    return _report(_Tally(submitted, known, sorted(refused)), as_json=as_json)


def _requests(template: Request, batch: list[tuple[int, bytes]]) -> tuple[dict[int, Request], list[tuple[int, str]]]:
    """The requests of some lines by their numbers, and the lines that are not JSON."""
    requests: dict[int, Request] = {}
    broken = []
    for number, line in batch:
        if not line.strip():
            continue
        key = f"{template.idempotency_key}:{number}" if template.idempotency_key else None
        try:
            value = _parse(line, "the line")
        except InvalidInput as error:
            broken.append((number, str(error)))
        else:
            requests[number] = replace(template, input=value, idempotency_key=key, id=new_id())
    return requests, broken


def _batches(lines: Iterator[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    while batch := list(islice(lines, MAX_BATCH)):
        yield batch


def _report(tally: _Tally, *, as_json: bool) -> int:
    if as_json:
        refused = [{"line": number, "reason": reason} for number, reason in tally.refused]
        output.print_json({"submitted": tally.submitted, "known": tally.known, "refused": refused})
    else:
        known = f", {tally.known} were there already" if tally.known else ""
        output.console().print(f"{tally.submitted} runs submitted{known}, {len(tally.refused)} refused")
        for number, reason in tally.refused[:REFUSALS_SHOWN]:
            output.errors().print(f"line {number}: {reason}", style="red", soft_wrap=True)
    return 1 if tally.refused else 0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def _read(given: str) -> bytes:
    if given == "-":
        return sys.stdin.buffer.read()
    if not given.startswith("@"):
        return given.encode(errors="surrogateescape")
    try:
        return Path(given[1:]).read_bytes()
    except OSError as error:
        raise ConfigError(f"{given[1:]} cannot be read: {error.strerror}") from error


def _parse(data: bytes, what: str) -> Any:
    try:
        return payloads.decode(data)
    except ValueError as error:
        hint = SHELL_HINT if what == "the input" else "one JSON value per line"
        raise InvalidInput(f"{what} is not JSON: {error}; {hint}", [FieldError("input", str(error))]) from error


def _instant(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return from_datetime(datetime.fromisoformat(text))
    except ValueError as error:
        message = f"{text!r} is not an instant in ISO 8601 with a time zone, such as 2026-01-31T09:00:00Z"
        raise InvalidInput(f"--at: {message}", [FieldError("at", message)]) from error
