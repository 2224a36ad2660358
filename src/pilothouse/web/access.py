"""Who may ask for what. While there are no API keys, only this machine; from the first key on, whoever shows one.

A key is looked up at most every two seconds, so that is how long a revoked one may still be heard.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import parse_qsl, urlencode

from fastapi import Depends, Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from pilothouse.clock import SystemClock
from pilothouse.control import Database, keys, tenants
from pilothouse.control.keys import KeyHolder
from pilothouse.control.sessions import Sessions
from pilothouse.domain.approvals import Decider
from pilothouse.domain.keys import KeyRole, includes
from pilothouse.errors import NotFound, StoreError
from pilothouse.web.auth import LOCAL_PRINCIPAL, READING, foreign_origin, is_loopback, local_refusal
from pilothouse.web.own_figures import OwnFigures, unpacked
from pilothouse.web.problems import Problem, problem_of

COOKIE_MARK = "\0"
"""Before the text of a session, so that it is no key: no header can hold this character."""

FRESH_SECONDS = 2.0
NOTE_SECONDS = 60.0
CACHED_KEYS = 1000

OPEN_PATHS = frozenset({"/health", "/ready"})
"""Probes: they say nothing about runs."""

LINK_PATHS = re.compile(r"/approvals/link/[\w.-]+|/sign-in|/static/.*")
"""A signed link is its own key, who signs in has none yet, and styles and scripts are everybody's."""

PAGES = (
    *("submit", "runs", "dead", "approvals", "agents", "schedules"),
    *("alerts", "budgets", "effects", "switches", "incidents"),
    *("workers", "audit", "runbooks", "settings", "sign-out", "live"),
)

PAGE_PATHS = re.compile(rf"/|/({'|'.join(PAGES)})(/.*)?")
"""The dashboard: a browser shows its session as a cookie, which opens nothing else."""

SESSION_COOKIE = "pilothouse_session"

ADMIN_PATHS = re.compile(r"/api/v1/(keys|tenants)(/|$)|/settings/(keys|tenants)(/|$)")

TENANT_PATHS = re.compile(
    r"/api/v1/(runs|runs:(batch|cancel|redrive)|dead/redrive|dead/dismiss|incidents)"
    r"|/|/(submit|runs|dead|approvals|agents)(/.*)?|/(live|sign-out)"
)
"""Routes and pages that hold each request against the caller's tenant themselves."""

LISTING_PATHS = re.compile(
    r"/api/v1/(runs|dead|audit|events|schedules|approvals|effects|incidents|budgets|costs|reservations)"
)
"""Lists that take `tenant`, which a key of one tenant always gives."""

SHARED_PATHS = re.compile(r"/api/v1/agents(/[^/]+)?")
"""Definitions that all tenants share; whoever has a key may read them."""

PLATFORM_PATHS = re.compile(r"/api/v1/(audit/verification|runs/[^/]+/grant|reservations/[^/]+/settle)")
"""What looks like a thing of a tenant and is not for it: what it may spend is for others to say."""

NAMED_PATHS = re.compile(r"/api/v1/(?P<noun>[a-z_]+)/(?P<name>[^/]+)(/.*)?")

_clock = SystemClock()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `tenant` None: may see all tenants."""

    principal: str
    tenant: str | None = None
    role: KeyRole = KeyRole.ADMIN
    key_id: str | None = None

    @property
    def decider(self) -> Decider:
        """Who decides an approval."""
        return Decider(self.principal, self.role, self.tenant, self.key_id)

    def own_tenant(self, asked: str | None) -> str | None:
        """The tenant that a request is about. Raises NotFound where the caller's key is for another one."""
        if self.tenant is None or asked in (None, self.tenant):
            return self.tenant or asked
        raise no_tenant(asked)


LOCAL = Caller(LOCAL_PRINCIPAL)
NOBODY = Caller("", role=KeyRole.VIEWER)
"""Who has not signed in."""

SIGNED_OUT = "nobody is signed in here, or the session is over; sign in again and repeat what you did"

Pages = Callable[[Request, Problem], Response]
"""How the dashboard shows a problem."""


def role_needed(method: str, path: str) -> KeyRole:
    """The role that a request needs."""
    if ADMIN_PATHS.match(path):
        return KeyRole.ADMIN
    return KeyRole.VIEWER if method in READING or path == "/sign-out" else KeyRole.OPERATOR


def caller_of(request: Request) -> Caller:
    caller: Caller = request.scope["pilothouse.caller"]
    return caller


def _principal(request: Request) -> str:
    return caller_of(request).principal


PrincipalOf = Annotated[str, Depends(_principal)]
"""A route's parameter: who acts, for the audit."""


class Access:
    """Lets a request through with its caller, or answers why not. `host` is the address that is served."""

    def __init__(self, app: ASGIApp, db: Database, host: str, sessions: Sessions, pages: Pages) -> None:
        self._app = app
        self._db = db
        self._sessions = sessions
        self._pages = pages
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
        tenant = scope["pilothouse.caller"].tenant
        if problem is not None:
            await self._answer(scope, problem)(scope, receive, send)
        elif tenant is None:
            await self._app(scope, receive, send)
        else:
            await self._app(unpacked(scope), receive, OwnFigures(send, tenant))

    def _answer(self, scope: Scope, problem: Problem) -> Response:
        """A page says no as a page, and leads whom it does not know to the one where people sign in."""
        if not PAGE_PATHS.fullmatch(scope["path"]):
            return problem.response(scope["path"])
        if problem.status == 401 and scope["method"] in READING and scope["path"] != "/live":
            return redirect_to_sign_in(scope)
        if problem.status == 401:
            problem = Problem(401, "unauthorized", SIGNED_OUT, headers=problem.headers)
        return self._pages(Request(scope), problem)

    async def _refusal(self, scope: Scope) -> Problem | None:
        """Why not; None puts the caller into the scope."""
        scope["pilothouse.caller"] = LOCAL
        if scope["path"] in OPEN_PATHS or LINK_PATHS.fullmatch(scope["path"]):
            is_open = self._is_outside or self._needs_keys[1]
            return None if is_open else local_refusal(scope)  # never asks the database: a probe must not wait for it
        try:
            if not await self._are_keys_needed():
                return local_refusal(scope)
            holder = await self._holder(scope)
            if holder is None:
                scope["pilothouse.caller"] = NOBODY
                return _unauthorized(_token(scope))
            scope["pilothouse.caller"] = Caller(holder.principal, holder.tenant, holder.role, holder.key_id)
            self._note_use(holder)
            return _beyond_origin(scope) or _beyond_role(scope, holder) or await self._beyond_tenant(scope, holder)
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
            is_session = token.startswith(COOKIE_MARK)
            if is_session:
                holder = await self._sessions.holder(token.removeprefix(COOKIE_MARK))
            else:
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
        """What a key of one tenant may not see: what is of another tenant does not exist for it.

        What no rule here names is refused, so that a new route is shut to tenants until somebody has thought of them.
        """
        if holder.tenant is None:
            return None
        path, is_reading = scope["path"], scope["method"] in READING
        if is_reading and LISTING_PATHS.fullmatch(path):
            return _narrow(scope, holder.tenant)
        if TENANT_PATHS.fullmatch(path) or (is_reading and SHARED_PATHS.fullmatch(path)):
            return None
        named = NAMED_PATHS.fullmatch(path)
        if named is None or named["noun"] not in tenants.OWNED or PLATFORM_PATHS.fullmatch(path):
            return _forbidden(f"the key {holder.name!r} is for tenant {holder.tenant!r}, and {path} is about all")
        return await self._beyond_owner(named["noun"], named["name"], holder.tenant)

    async def _beyond_owner(self, noun: str, name: str, tenant: str) -> Problem | None:
        try:
            await tenants.expect_owner(self._db, noun, name, tenant=tenant)
        except NotFound as error:
            return problem_of(error)
        return None


def no_tenant(tenant: str | None) -> NotFound:
    return NotFound(f"there is no tenant {tenant!r} for this key; leave the tenant out")


def _narrow(scope: Scope, tenant: str) -> Problem | None:
    """Makes a list one of the tenant's own rows."""
    asked = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    others = [value for name, value in asked if name == "tenant" and value != tenant]
    if others:
        return problem_of(no_tenant(others[0]))
    kept = [(name, value) for name, value in asked if name != "tenant"]
    scope["query_string"] = urlencode([*kept, ("tenant", tenant)]).encode()
    return None


def _token(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"authorization":
            kind, _, token = value.decode("latin-1").partition(" ")
            return token.strip() if kind.lower() == "bearer" else None
    if PAGE_PATHS.fullmatch(scope["path"]):  # the API takes no cookie, so no other site can use one there
        session = Request(scope).cookies.get(SESSION_COOKIE)
        return None if session is None else COOKIE_MARK + session
    return None


def redirect_to_sign_in(scope: Scope) -> Response:
    query = scope["query_string"].decode("latin-1")
    wanted = scope["path"] + (f"?{query}" if query else "")
    return Response(status_code=303, headers={"Location": f"/sign-in?{urlencode({'next': wanted})}"})


def _beyond_origin(scope: Scope) -> Problem | None:
    """A form of the dashboard is sent by its own pages alone: a browser tells where it was."""
    if scope["method"] in READING or not PAGE_PATHS.fullmatch(scope["path"]):
        return None
    hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
    return foreign_origin(scope, hosts[0]) if hosts else None


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
