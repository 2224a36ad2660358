"""Who may ask for what. While there are no API keys, only this machine; from the first key on, whoever shows one.

A key is looked up at most every two seconds, so that is how long a revoked one may still be heard.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import parse_qsl, urlencode

from fastapi import Depends, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from pilothouse.clock import SystemClock
from pilothouse.control import Database, keys, runs
from pilothouse.control.keys import KeyHolder
from pilothouse.domain.keys import KeyRole, includes
from pilothouse.errors import Forbidden, NotFound, StoreError
from pilothouse.web.auth import LOCAL_PRINCIPAL, READING, is_loopback, local_refusal
from pilothouse.web.problems import Problem, problem_of

FRESH_SECONDS = 2.0
NOTE_SECONDS = 60.0
CACHED_KEYS = 1000

OPEN_PATHS = frozenset({"/health", "/ready", "/"})
"""They say nothing about runs: probes, and the page that asks for a key itself."""

ADMIN_PATHS = re.compile(r"/api/v1/keys(/|$)")

TENANT_PATHS = re.compile(r"/api/v1/(runs|runs:batch|dead|dead/redrive|dead/dismiss|audit|events|agents|agents/[^/]+)")
"""What a key of one tenant may ask for, besides single runs; everything else speaks of all tenants."""

LISTING_PATHS = re.compile(r"/api/v1/(runs|dead|audit|events)")
RUN_PATHS = re.compile(r"/api/v1/runs/([^/]+)(/.*)?")

_clock = SystemClock()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `tenant` None: may see all tenants."""

    principal: str
    tenant: str | None = None

    def own_tenant(self, asked: str | None) -> str | None:
        """The tenant that a request is about. Raises Forbidden where the caller's key is for another one."""
        if self.tenant is None or asked in (None, self.tenant):
            return self.tenant or asked
        raise Forbidden(f"the key is for tenant {self.tenant!r}, not for {asked!r}")


LOCAL = Caller(LOCAL_PRINCIPAL)


def role_needed(method: str, path: str) -> KeyRole:
    """The role that a request needs."""
    if ADMIN_PATHS.match(path):
        return KeyRole.ADMIN
    return KeyRole.VIEWER if method in READING else KeyRole.OPERATOR


def caller_of(request: Request) -> Caller:
    caller: Caller = request.scope["pilothouse.caller"]
    return caller


def _principal(request: Request) -> str:
    return caller_of(request).principal


PrincipalOf = Annotated[str, Depends(_principal)]
"""A route's parameter: who acts, for the audit."""


class Access:
    """Lets a request through with its caller, or answers why not. `host` is the address that is served."""

    def __init__(self, app: ASGIApp, db: Database, host: str) -> None:
        self._app = app
        self._db = db
        self._is_outside = not is_loopback(host)
        self._holders: dict[str, tuple[float, KeyHolder | None]] = {}
        self._noted: dict[str, float] = {}
        self._needs_keys = (float("-inf"), False)
        self._notes: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        problem = await self._refusal(scope)
        if problem is None:
            await self._app(scope, receive, send)
        else:
            await problem.response(scope["path"])(scope, receive, send)

    async def _refusal(self, scope: Scope) -> Problem | None:
        """Why not; None puts the caller into the scope."""
        scope["pilothouse.caller"] = LOCAL
        if scope["path"] in OPEN_PATHS:
            is_open = self._is_outside or self._needs_keys[1]
            return None if is_open else local_refusal(scope)  # never asks the database: a probe must not wait for it
        try:
            if not await self._are_keys_needed():
                return local_refusal(scope)
            holder = await self._holder(scope)
            if holder is None:
                return _unauthorized(_token(scope))
            scope["pilothouse.caller"] = Caller(holder.principal, holder.tenant)
            self._note_use(holder)
            return _beyond_role(scope, holder) or await self._beyond_tenant(scope, holder)
        except StoreError as error:
            return problem_of(error)

    async def _are_keys_needed(self) -> bool:
        read_at, is_needed = self._needs_keys
        if _clock.monotonic() - read_at > FRESH_SECONDS:
            is_needed = await keys.are_needed(self._db)
            self._needs_keys = (_clock.monotonic(), is_needed)
        return is_needed

    async def _holder(self, scope: Scope) -> KeyHolder | None:
        token = _token(scope)
        if token is None:
            return None
        read_at, holder = self._holders.get(token, (float("-inf"), None))
        if _clock.monotonic() - read_at > FRESH_SECONDS:
            if len(self._holders) >= CACHED_KEYS:
                self._holders.clear()
            holder = await keys.authenticate(self._db, token)
            self._holders[token] = (_clock.monotonic(), holder)
        return holder

    def _note_use(self, holder: KeyHolder) -> None:
        """Beside the request, and not for each."""
        now = _clock.monotonic()
        if now - self._noted.get(holder.key_id, float("-inf")) < NOTE_SECONDS:
            return
        self._noted[holder.key_id] = now
        task = asyncio.get_running_loop().create_task(self._write_use(holder.key_id))
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)

    async def _write_use(self, key_id: str) -> None:
        try:
            await keys.note_use(self._db, key_id)
        except StoreError:
            self._noted.pop(key_id, None)  # the next request tries again

    async def _beyond_tenant(self, scope: Scope, holder: KeyHolder) -> Problem | None:
        """What a key of one tenant may not see; a run of another tenant does not exist for it."""
        if holder.tenant is None:
            return None
        path = scope["path"]
        if LISTING_PATHS.fullmatch(path) and scope["method"] in READING:
            return _narrow(scope, holder.tenant)
        if TENANT_PATHS.fullmatch(path):
            return None
        named = RUN_PATHS.fullmatch(path)
        if named is None:
            return _forbidden(f"the key {holder.name!r} is for tenant {holder.tenant!r}, and {path} is about all")
        try:
            run = await runs.get_run(self._db, named[1])
        except NotFound as error:
            return problem_of(error)
        return None if run["tenant"] == holder.tenant else problem_of(runs.unknown_run(named[1]))


def _narrow(scope: Scope, tenant: str) -> Problem | None:
    """Makes a list one of the tenant's own rows."""
    asked = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    others = [value for name, value in asked if name == "tenant" and value != tenant]
    if others:
        return _forbidden(f"the key is for tenant {tenant!r}, not for {others[0]!r}")
    kept = [(name, value) for name, value in asked if name != "tenant"]
    scope["query_string"] = urlencode([*kept, ("tenant", tenant)]).encode()
    return None


def _token(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"authorization":
            kind, _, token = value.decode("latin-1").partition(" ")
            return token.strip() if kind.lower() == "bearer" else None
    return None


def _beyond_role(scope: Scope, holder: KeyHolder) -> Problem | None:
    needed = role_needed(scope["method"], scope["path"])
    if includes(holder.role, needed):
        return None
    return _forbidden(
        f"the key {holder.name!r} is a {holder.role}'s, and {scope['method']} {scope['path']} needs an {needed}'s"
    )


def _unauthorized(token: str | None) -> Problem:
    told = "there is no API key in the request" if token is None else "the API key is unknown, revoked or expired"
    detail = f"{told}; send one as `Authorization: Bearer ph_…` (`pilothouse keys create` makes one)"
    return Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": 'Bearer realm="pilothouse"'})


def _forbidden(detail: str) -> Problem:
    return Problem(403, "forbidden", detail)
