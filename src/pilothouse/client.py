"""Clients of a running server: `Client` blocks, `AsyncClient` awaits; both send the same requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx2

from pilothouse import payloads
from pilothouse.clock import new_id
from pilothouse.config.environment import ambient_traceparent
from pilothouse.domain.runs import TERMINAL
from pilothouse.errors import (
    ConfigError,
    Conflict,
    FieldError,
    Forbidden,
    InvalidInput,
    NotFound,
    PilothouseError,
    QueueFull,
    RateLimited,
    Refused,
    SchemaError,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
    SwitchedOff,
    TryLater,
)

DEFAULT_URL = "http://127.0.0.1:8000"
TRIES = 5
PAUSE_SECONDS = (0.1, 0.3, 1.0, 2.0)
LONGEST_PAUSE_SECONDS = 10.0
POLL_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Waits between looks of `wait`; the last one repeats."""
CUT = ConnectionError("it ends its streams")
SILENCE_SECONDS = 60.0
"""A stream that is silent for longer is cut: the server says every few seconds that it is there."""

_ERRORS: Mapping[str, type[PilothouseError]] = {
    "not_found": NotFound,
    "conflict": Conflict,
    "forbidden": Forbidden,
    "queue_full": QueueFull,
    "rate_limited": RateLimited,
    "switched_off": SwitchedOff,
    "store_unavailable": StoreUnavailable,
    "store_full": StoreFull,
    "store_read_only": StoreReadOnly,
    "schema_mismatch": SchemaError,
}


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `is_safe`: sending it twice does what sending it once does."""

    method: str
    path: str
    body: Any = None
    query: Mapping[str, str] = field(default_factory=dict)
    is_safe: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """A server-sent event: `id` resumes after it, `name` is its kind, `data` its JSON."""

    id: str
    name: str
    data: Any


# --- what both clients say and understand --------------------------------------------------------


def submit_call(agent: str, input: Any, options: Mapping[str, Any]) -> Call:
    """A submit; without a key of the caller's it gets one, so that it can be sent again after a cut."""
    given = {name: value for name, value in options.items() if value is not None}
    moment = given.pop("at", None)
    if isinstance(moment, datetime):
        given["at"] = moment.isoformat()
    elif moment is not None:
        given["at"] = moment
    given.setdefault("idempotency_key", f"client:{new_id()}")
    return Call("POST", "/runs", {"agent": agent, "input": {} if input is None else input, **given}, is_safe=True)


def submit_many_call(requests: Sequence[Mapping[str, Any]]) -> Call:
    runs = [submit_call(each["agent"], each.get("input"), _options(each)).body for each in requests]
    return Call("POST", "/runs:batch", {"runs": runs}, is_safe=True)


def _options(request: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in request.items() if name not in ("agent", "input")}


def _run_path(run_id: str) -> str:
    """Whatever is in an id, it is one part of the path."""
    return f"/runs/{quote(run_id, safe='')}"


def get_call(run_id: str) -> Call:
    return Call("GET", _run_path(run_id), is_safe=True)


def timeline_call(run_id: str) -> Call:
    return Call("GET", f"{_run_path(run_id)}/timeline", is_safe=True)


def cancel_call(run_id: str, reason: str) -> Call:
    return Call("POST", f"{_run_path(run_id)}/cancel", {"reason": reason}, is_safe=True)


def redrive_call(run_id: str, start_from: str, reason: str) -> Call:
    return Call("POST", f"{_run_path(run_id)}/redrive", {"from": start_from, "reason": reason})


def signal_call(run_id: str, name: str, payload: Any) -> Call:
    return Call("POST", f"{_run_path(run_id)}/signals/{quote(name, safe='')}", payload, is_safe=True)


def grant_call(run_id: str, usd: float, reason: str) -> Call:
    body = {"unit": "microusd", "amount": round(usd * 1_000_000), "reason": reason}
    return Call("POST", f"{_run_path(run_id)}/grant", body, is_safe=True)


def costs_call(by: str, first: date | None, last: date | None) -> Call:
    days = {"from": first, "to": last}
    return Call("GET", "/costs", query={"by": by} | {name: str(day) for name, day in days.items() if day}, is_safe=True)


def latest_record_call() -> Call:
    return Call("GET", "/audit", query={"limit": "1"}, is_safe=True)


def event_id_of(records: Mapping[str, Any]) -> str:
    """What a stream of all events resumes after, so that a cut before its first event loses none either."""
    return str(records["items"][0]["seq"]) if records["items"] else "0"


def events_path(run_id: str | None) -> str:
    return "/events" if run_id is None else f"{_run_path(run_id)}/events"


def parse(response: httpx2.Response) -> Any:
    """The JSON of an answer. Raises the error that a problem stands for."""
    if not response.is_success:
        raise error_of(response)
    try:
        return response.json()
    except ValueError as error:
        raise PilothouseError(f"{_answer_of(response)}; is this the address of Pilothouse?") from error


def error_of(response: httpx2.Response) -> PilothouseError:
    """The same error that the verb would have raised in process."""
    try:
        problem = response.json()
        detail, code = str(problem["detail"]), str(problem.get("code", ""))
    except (ValueError, KeyError, TypeError):
        return PilothouseError(f"{_answer_of(response)}; is this the address of Pilothouse?")
    if code == InvalidInput.code:
        fields = [FieldError(each["field"], each["message"]) for each in problem.get("errors", ())]
        return InvalidInput(detail, fields)
    kind = _ERRORS.get(code, Refused if response.status_code < 500 else PilothouseError)
    if issubclass(kind, (StoreUnavailable, TryLater)):
        return kind(detail, retry_after_seconds=float(response.headers.get("retry-after", "5")))
    return kind(detail)


def _answer_of(response: httpx2.Response) -> str:
    text = " ".join(response.text.split())
    return f"{response.request.url} answered {response.status_code} and no JSON of ours: {text[:100]!r}"


def unreachable(url: str, error: Exception) -> StoreUnavailable:
    return StoreUnavailable(
        f"{url} cannot be reached: {str(error) or type(error).__name__}; is `pilothouse up` running?"
    )


def pause_seconds(error: StoreUnavailable, tries: int, *, is_safe: bool) -> float:
    """How long to wait before the next try. Raises `error` where there is none."""
    if not is_safe or tries >= TRIES:
        raise error
    asked = error.retry_after_seconds if error.__cause__ is None else 0.0
    return min(LONGEST_PAUSE_SECONDS, max(asked, PAUSE_SECONDS[min(tries, len(PAUSE_SECONDS)) - 1]))


class EventReader:
    """Puts the lines of a stream together to events, and knows where to resume."""

    def __init__(self) -> None:
        self.last_id: str | None = None
        self._fields: dict[str, str] = {}

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.last_id is None else {"Last-Event-ID": self.last_id}

    def restart(self) -> None:
        """Forgets an event that a cut left unfinished; it comes again."""
        self._fields = {}

    def read(self, line: str) -> Event | None:
        """The event that this line completes, if any."""
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name:
                self._fields[name] = f"{self._fields[name]}\n{value}" if name in self._fields else value
            return None
        fields, self._fields = self._fields, {}
        if "data" not in fields:
            return None
        self.last_id = fields.get("id", self.last_id)
        return Event(self.last_id or "", fields.get("event", "message"), payloads.decode(fields["data"]))


def _configuration(url: str, api_key: str | None, timeout_seconds: float) -> dict[str, Any]:
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"{url!r} is not the URL of a server; write it as {DEFAULT_URL}")
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    return {"base_url": f"{url.rstrip('/')}/api/v1", "headers": headers, "timeout": timeout_seconds}


def _sent(call: Call) -> dict[str, Any]:
    try:
        content = None if call.method == "GET" else payloads.encode(call.body)
    except ValueError as error:
        raise InvalidInput(f"the request {error}", [FieldError("input", str(error))]) from error
    headers = {"content-type": "application/json"} if content is not None else {}
    trace = ambient_traceparent()
    if trace is not None:
        headers["traceparent"] = trace
    return {"method": call.method, "url": call.path, "params": call.query, "content": content, "headers": headers}


# --- the two shells --------------------------------------------------------------------------------


class Client:
    """A blocking client. `api_key` goes along as a bearer token, `timeout_seconds` bounds each request.

    Every method raises NotFound, Conflict, InvalidInput (whose `fields` name what does not fit), Forbidden, QueueFull,
    RateLimited or StoreUnavailable, the latter after a few tries where trying again is safe. Use it as a context
    manager, or `close` it.
    """

    def __init__(self, url: str = DEFAULT_URL, api_key: str | None = None, *, timeout_seconds: float = 30.0) -> None:
        self.url = url
        self._http = httpx2.Client(**_configuration(url, api_key, timeout_seconds))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def submit(self, agent: str, input: Any = None, **options: Any) -> dict[str, Any]:
        """Submits a run: `id`, `state`, `url`, and `created`, which is False where its key had made it before.

        `options` are `lane`, `priority` (0 to 9), `at` (an aware datetime), `idempotency_key`, `tenant`,
        `concurrency_key`, `user` and `webhook_url`.
        """
        return dict(self._send(submit_call(agent, input, options)))

    def submit_many(self, requests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Submits many runs, each a mapping of `agent`, `input` and options; each has its own answer, in order."""
        return list(self._send(submit_many_call(requests))["runs"])

    def get(self, run_id: str) -> dict[str, Any]:
        """One run as it is now."""
        return dict(self._send(get_call(run_id)))

    def timeline(self, run_id: str) -> dict[str, Any]:
        """One run with its attempts, steps, signals, logs, children and audit."""
        return dict(self._send(timeline_call(run_id)))

    def wait(self, run_id: str, *, timeout_seconds: float | None = None) -> dict[str, Any]:
        """The run once it has ended. Raises TimeoutError after `timeout_seconds`; the run goes on all the same."""
        started, looks = time.monotonic(), 0
        while (run := self.get(run_id))["state"] not in TERMINAL:
            _check_time(run_id, started, timeout_seconds)
            time.sleep(POLL_SECONDS[min(looks, len(POLL_SECONDS) - 1)])
            looks += 1
        return run

    def cancel(self, run_id: str, *, reason: str = "") -> dict[str, Any]:
        """Cancels a run and what it started; the run as it is then, perhaps still `cancelling`."""
        return dict(self._send(cancel_call(run_id, reason)))

    def redrive(self, run_id: str, *, start_from: str = "failure", reason: str = "") -> dict[str, Any]:
        """Queues a failed run again, from the failing step or from the `start`."""
        return dict(self._send(redrive_call(run_id, start_from, reason)))

    def signal(self, run_id: str, name: str, payload: Any = None) -> bool:
        """Sends a signal; False where one of this name was there before, which then stands.

        After a cut it is sent again, so False may also mean that the first sending had arrived.
        """
        return bool(self._send(signal_call(run_id, name, payload))["first"])

    def grant(self, run_id: str, *, usd: float, reason: str = "") -> dict[str, Any]:
        """Lets a run spend so many dollars more than it has spent so far; where it waited for that, it goes on."""
        return dict(self._send(grant_call(run_id, usd, reason)))

    def costs(self, by: str = "agent", *, first: date | None = None, last: date | None = None) -> list[dict[str, Any]]:
        """What was spent, the dearest first: by agent, version, model, tenant, day, user, tool or platform.

        From the `first` to the `last` day, this month's unless given.
        """
        return list(self._send(costs_call(by, first, last))["items"])

    def events(self, run_id: str | None = None) -> Iterator[Event]:
        """The events of a run from its beginning to its end, or all from now on; resumes after a cut."""
        reader, cuts = EventReader(), 0
        if run_id is None:
            reader.last_id = event_id_of(self._send(latest_record_call()))
        while True:
            path, headers = events_path(run_id), reader.headers
            try:
                with self._http.stream("GET", path, headers=headers, timeout=SILENCE_SECONDS) as response:
                    if not response.is_success:
                        response.read()
                        parse(response)
                    for line in response.iter_lines():
                        cuts = 0
                        event = reader.read(line)
                        if event is not None:
                            yield event
                            if event.name == "end":
                                return
            except (httpx2.TransportError, StoreUnavailable) as error:
                cuts += 1
                time.sleep(pause_seconds(_as_unavailable(self.url, error), cuts, is_safe=True))
            else:
                cuts += 1
                time.sleep(pause_seconds(_as_unavailable(self.url, CUT), cuts, is_safe=True))
            reader.restart()

    def _send(self, call: Call) -> Any:
        tries = 0
        while True:
            tries += 1
            try:
                return parse(self._http.request(**_sent(call)))
            except (httpx2.TransportError, StoreUnavailable) as error:
                time.sleep(pause_seconds(_as_unavailable(self.url, error), tries, is_safe=call.is_safe))


class AsyncClient:
    """The same for asyncio: see `Client`; every method is awaited, `events` is an asynchronous iterator."""

    def __init__(self, url: str = DEFAULT_URL, api_key: str | None = None, *, timeout_seconds: float = 30.0) -> None:
        self.url = url
        self._http = httpx2.AsyncClient(**_configuration(url, api_key, timeout_seconds))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def submit(self, agent: str, input: Any = None, **options: Any) -> dict[str, Any]:
        return dict(await self._send(submit_call(agent, input, options)))

    async def submit_many(self, requests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return list((await self._send(submit_many_call(requests)))["runs"])

    async def get(self, run_id: str) -> dict[str, Any]:
        return dict(await self._send(get_call(run_id)))

    async def timeline(self, run_id: str) -> dict[str, Any]:
        return dict(await self._send(timeline_call(run_id)))

    async def wait(self, run_id: str, *, timeout_seconds: float | None = None) -> dict[str, Any]:
        started, looks = time.monotonic(), 0
        while (run := await self.get(run_id))["state"] not in TERMINAL:
            _check_time(run_id, started, timeout_seconds)
            await asyncio.sleep(POLL_SECONDS[min(looks, len(POLL_SECONDS) - 1)])
            looks += 1
        return run

    async def cancel(self, run_id: str, *, reason: str = "") -> dict[str, Any]:
        return dict(await self._send(cancel_call(run_id, reason)))

    async def redrive(self, run_id: str, *, start_from: str = "failure", reason: str = "") -> dict[str, Any]:
        return dict(await self._send(redrive_call(run_id, start_from, reason)))

    async def signal(self, run_id: str, name: str, payload: Any = None) -> bool:
        return bool((await self._send(signal_call(run_id, name, payload)))["first"])

    async def grant(self, run_id: str, *, usd: float, reason: str = "") -> dict[str, Any]:
        return dict(await self._send(grant_call(run_id, usd, reason)))

    async def costs(
        self, by: str = "agent", *, first: date | None = None, last: date | None = None
    ) -> list[dict[str, Any]]:
        return list((await self._send(costs_call(by, first, last)))["items"])

    async def events(self, run_id: str | None = None) -> AsyncIterator[Event]:
        reader, cuts = EventReader(), 0
        if run_id is None:
            reader.last_id = event_id_of(await self._send(latest_record_call()))
        while True:
            path, headers = events_path(run_id), reader.headers
            try:
                async with self._http.stream("GET", path, headers=headers, timeout=SILENCE_SECONDS) as response:
                    if not response.is_success:
                        await response.aread()
                        parse(response)
                    async for line in response.aiter_lines():
                        cuts = 0
                        event = reader.read(line)
                        if event is not None:
                            yield event
                            if event.name == "end":
                                return
            except (httpx2.TransportError, StoreUnavailable) as error:
                cuts += 1
                await asyncio.sleep(pause_seconds(_as_unavailable(self.url, error), cuts, is_safe=True))
            else:
                cuts += 1
                await asyncio.sleep(pause_seconds(_as_unavailable(self.url, CUT), cuts, is_safe=True))
            reader.restart()

    async def _send(self, call: Call) -> Any:
        tries = 0
        while True:
            tries += 1
            try:
                return parse(await self._http.request(**_sent(call)))
            except (httpx2.TransportError, StoreUnavailable) as error:
                await asyncio.sleep(pause_seconds(_as_unavailable(self.url, error), tries, is_safe=call.is_safe))


def _as_unavailable(url: str, error: Exception) -> StoreUnavailable:
    """The error with a cause where it is ours: only a server's own asks for a certain wait."""
    if isinstance(error, StoreUnavailable):
        return error
    told = unreachable(url, error)
    told.__cause__ = error
    return told


def _check_time(run_id: str, started: float, timeout_seconds: float | None) -> None:
    if timeout_seconds is not None and time.monotonic() - started >= timeout_seconds:
        raise TimeoutError(f"run {run_id} did not end within {timeout_seconds:g} s; it goes on")
