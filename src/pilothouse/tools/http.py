"""`http_request`: HTTP to hosts that are on its list, and to no other, whatever a redirect says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urljoin, urlsplit

from pilothouse.domain.effects import Effect
from pilothouse.engine.tools import Tool, ToolOptions, make_tool
from pilothouse.engine.tracing import trace_headers
from pilothouse.errors import ConfigError, ToolError
from pilothouse.tools.sending import refuse_failed

MAX_REDIRECTS = 5
MAX_BYTES = 1_000_000
KEY_HEADER = "Idempotency-Key"
READING = frozenset({"GET", "HEAD"})
REDIRECTS = frozenset({301, 302, 303, 307, 308})


def http_request(
    *,
    allow: Sequence[str],
    methods: Sequence[str] = ("GET",),
    name: str = "http_request",
    max_bytes: int = MAX_BYTES,
    timeout_seconds: float = 30.0,
    is_idempotent: bool = False,
) -> Tool:
    """A tool that makes HTTP requests to the hosts in `allow`.

    `allow` holds hosts (`api.example.com`), all below one (`*.example.com`), or origins where the scheme or the port is
    another than HTTPS's own (`http://localhost:8080`). With GET and HEAD alone it is a `read`, else a `write`, whose
    requests bear the key of the effect as `Idempotency-Key`; `is_idempotent` says that whoever is there looks at that
    key, so that a request may be sent again. An answer of more than `max_bytes` is cut. Raises ConfigError for an
    empty list.
    """
    if not allow:
        raise ConfigError(f"tool {name!r}: allow is empty; name the hosts that it may reach")
    allowed = tuple(allow)
    known = frozenset(method.upper() for method in methods)

    async def request(
        url: str,
        effect_key: str,
        method: str = "GET",
        body: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Any:
        """Makes an HTTP request and returns its status, headers and text."""
        if method.upper() not in known:
            raise ToolError(f"method {method!r} is not allowed; use {', '.join(sorted(known))}")
        sent = _with_key(headers or {}, effect_key) if method.upper() not in READING else headers or {}
        return await _request(allowed, url, method.upper(), body, {**trace_headers(), **sent}, max_bytes)

    effect = Effect.READ if known <= READING else Effect.WRITE
    options = ToolOptions(effect, platform="http", idempotent=is_idempotent, timeout_seconds=timeout_seconds)
    return make_tool(request, name, options)


def _with_key(headers: dict[str, str], effect_key: str) -> dict[str, str]:
    """The headers with an Idempotency-Key, unless the caller has given one."""
    is_given = any(name.lower() == KEY_HEADER.lower() for name in headers)
    return headers if is_given else {**headers, KEY_HEADER: effect_key}


async def _request(
    allow: Sequence[str], url: str, method: str, body: str | None, headers: dict[str, str], max_bytes: int
) -> dict[str, Any]:
    import httpx2

    async with httpx2.AsyncClient(timeout=None, follow_redirects=False) as client:
        for _ in range(MAX_REDIRECTS):
            check_allowed(allow, url)
            try:
                async with client.stream(method, url, content=body, headers=headers) as answer:
                    if answer.status_code in REDIRECTS and "location" in answer.headers:
                        url = urljoin(url, answer.headers["location"])
                        method, body = ("GET", None) if answer.status_code == 303 else (method, body)
                        continue
                    text, is_cut = await _read(answer, max_bytes)
                    return {"status": answer.status_code, "headers": dict(answer.headers), "text": text, "cut": is_cut}
            except httpx2.HTTPError as error:
                refuse_failed(error, f"{url} cannot be had", changes_the_world=method not in READING)
    raise ToolError(f"{url} leads through more than {MAX_REDIRECTS} redirects")


async def _read(answer: Any, max_bytes: int) -> tuple[str, bool]:
    content = bytearray()
    async for chunk in answer.aiter_bytes():
        content += chunk
        if len(content) > max_bytes:
            break
    return bytes(content[:max_bytes]).decode(answer.encoding or "utf-8", errors="replace"), len(content) > max_bytes


def check_allowed(allow: Sequence[str], url: str) -> None:
    """Raises ToolError for an address that the list does not let through."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    for entry in allow:
        wanted = urlsplit(entry if "://" in entry else f"https://{entry}")
        if parts.scheme != wanted.scheme or parts.port != wanted.port or parts.username is not None:
            continue
        pattern = wanted.hostname or ""
        if host == pattern or (pattern.startswith("*.") and host.endswith(pattern[1:])):
            return
    listed = ", ".join(entry if "://" in entry else f"https://{entry}" for entry in allow)
    raise ToolError(f"{url[:200]!r} is not on the list of this tool: {listed}")
