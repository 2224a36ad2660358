"""Submitting by hand: a form made from an agent's input schema, or JSON; what was typed stays until it fits."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request, Response

from pilothouse import payloads
from pilothouse.control import agents, run_pages
from pilothouse.domain.lanes import LANE_ORDER
from pilothouse.errors import InvalidInput, NotFound, Refused
from pilothouse.web.access import caller_of
from pilothouse.web.api.runs import request_of
from pilothouse.web.backend import Backend, BackendOf
from pilothouse.web.pages.forms import FormOf
from pilothouse.web.pages.schema_forms import (
    BLANK,
    NEEDED,
    Shape,
    defaults,
    fields_of,
    flatten,
    lines_of,
    say,
    shape_of,
)
from pilothouse.web.pages.showing import PageRoute, redirect, show
from pilothouse.web.pages.wording import editable
from pilothouse.web.problems import problem_of

router = APIRouter(include_in_schema=False, route_class=PageRoute)

OPTIONS = ("lane", "priority", "at", "tenant", "user", "idempotency_key", "concurrency_key")
LONGEST_COMMAND = 2000


@dataclass(slots=True)
class Typed:
    """What stands in the form: the fields of the input, or its JSON, and the options beside it."""

    agent: str
    shape: Shape
    form: dict[str, str]
    as_json: bool = False
    errors: dict[str, str] = field(default_factory=dict)

    def value(self) -> Any:
        """The input that it says; `errors` then tells what does not fit."""
        if not self.as_json:
            value = say(self.shape, self.form, self.errors)
            if value is BLANK:
                self.errors["input"] = NEEDED
            return value
        try:
            return payloads.decode(self.form.get("json", "").strip() or "{}")
        except ValueError as error:
            self.errors["json"] = f"is not JSON: {error}"
            return BLANK


@router.get("/submit")
async def show_form(request: Request, backend: BackendOf, agent: str = "", again: str = "") -> Response:
    """The form of an agent, empty or, `again`, with the input of a run."""
    if again:
        found = await run_pages.look(backend.db, again, tenant=caller_of(request).tenant)
        run = found["run"]
        typed = await _typed(backend, run["agent"], {"lane": run["lane"]})
        if typed.shape.kind != "json":
            typed.form |= flatten(typed.shape, run["input"])
        typed.form["json"] = editable(run["input"])
        typed.as_json = typed.shape.kind == "json" or say(typed.shape, typed.form, {}) != run["input"]
        return await _show(request, backend, typed)
    if not agent:
        return await _show(request, backend, None)
    typed = await _typed(backend, agent, {})
    typed.form |= defaults(typed.shape)
    typed.as_json = typed.shape.kind == "json"
    return await _show(request, backend, typed)


@router.post("/submit")
async def submit_form(request: Request, backend: BackendOf, form: FormOf) -> Response:
    """Submits, or shows the form anew: with a line more, or as JSON."""
    typed = await _typed(backend, form.get("agent", ""), form)
    typed.as_json = form.get("as") == "json"
    action = form.get("do", "submit")
    if action.startswith("add:"):
        name = action.removeprefix("add:")
        typed.form[f"{name}.#"] = str(max(1, lines_of(form, name)) + 1)
        return await _show(request, backend, typed)
    if action in ("json", "fields"):
        return await _show(request, backend, _turned(typed, as_json=action == "json"))
    value = typed.value()
    if typed.errors:
        return await _show(request, backend, typed, 422)
    if not typed.as_json:
        typed.form |= flatten(
            typed.shape, value
        )  # lines that were left out are gone, so that errors name the right one
    try:
        submitted = await backend.submitter.submit(request_of(_body(typed, value), caller_of(request), None))
    except Refused as error:
        return await _refused(request, backend, typed, error)
    said = "It is submitted." if submitted.is_new else "It was there already: its idempotency key is known."
    return redirect(request, f"/runs/{submitted.id}", said)


async def _typed(backend: Backend, name: str, form: Mapping[str, str]) -> Typed:
    row = agents.public(await agents.show_agent(backend.db, name))
    schema = row["input_schema"] if isinstance(row["input_schema"], dict) else {}
    return Typed(row["name"], shape_of(schema, schema), dict(form))


def _turned(typed: Typed, *, as_json: bool) -> Typed:
    """The other way to type the same."""
    value = typed.value()
    if as_json:
        typed.errors.clear()
        typed.form["json"] = editable({} if value is BLANK else value)
    elif value is BLANK:
        return typed
    else:
        typed.form |= flatten(typed.shape, value)
    typed.as_json = as_json
    return typed


def _body(typed: Typed, value: Any) -> dict[str, Any]:
    """The request that the form says."""
    given: dict[str, Any] = {name: typed.form[name].strip() for name in OPTIONS if typed.form.get(name, "").strip()}
    if "priority" in given and given["priority"].isascii() and given["priority"].isdigit():
        given["priority"] = int(given["priority"])
    if "at" in given:
        given["at"] = _with_zone(given["at"])
    return {"agent": typed.agent, "input": value, **given}


def _with_zone(text: str) -> str:
    """A browser's field for a time has no zone; its label says that it is UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    return text if moment.tzinfo else moment.replace(tzinfo=UTC).isoformat()


async def _refused(request: Request, backend: Backend, typed: Typed, error: Refused) -> Response:
    fields = error.fields if isinstance(error, InvalidInput) else ()
    for each in fields:
        typed.errors.setdefault(each.field, each.message)
    problem = problem_of(error)
    if isinstance(error, NotFound):
        typed.errors.setdefault("agent", str(error))
    return await _show(request, backend, typed, 400 if problem is None else problem.status, str(error))


async def _show(
    request: Request, backend: Backend, typed: Typed | None, status: int = 200, refused: str = ""
) -> Response:
    known = [row for row in await agents.list_agents(backend.db) if not row["name"].startswith("pilothouse.")]
    facts: dict[str, Any] = {"agents": known, "refused": refused, "lanes": LANE_ORDER, "typed": typed}
    if typed is None:
        return show(request, "submit.html", status, **facts, fields=[], options={}, others=[], command="")
    fields = fields_of(typed.shape, typed.form, typed.errors)
    shown = set(_names(fields)) | {"json"} | set(OPTIONS)
    is_beside = shown - {each for each in shown if typed.as_json and each.startswith("input")}
    others = [f"{name}: {told}" for name, told in typed.errors.items() if name not in is_beside]
    options = {name: typed.form.get(name, "") for name in OPTIONS}
    return show(
        request,
        "submit.html",
        status,
        **facts,
        fields=fields,
        options=options,
        others=others,
        command=_command(typed),
        can_be_fields=typed.shape.kind != "json",
    )


def _names(fields: Any) -> Any:
    for each in fields:
        yield each.name
        yield from _names(each.below)


def _command(typed: Typed) -> str:
    """The same from a terminal, with what is typed so far."""
    said = Typed(typed.agent, typed.shape, typed.form, typed.as_json)
    value = said.value()
    given = {name: text for name in OPTIONS if (text := typed.form.get(name, "").strip())}
    if "at" in given:
        given["at"] = _with_zone(given["at"])
    options = [f"--{name.replace('_', '-')} {shlex.quote(text)}" for name, text in given.items()]
    text = "{}" if value is BLANK else payloads.encode(value)
    fits = len(text) <= LONGEST_COMMAND and not said.errors.keys() - {"input"}
    data = shlex.quote(text) if fits else "@input.json"
    return " ".join(["pilothouse submit", shlex.quote(typed.agent), data, *options, "--watch"])
