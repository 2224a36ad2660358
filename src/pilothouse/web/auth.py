"""Without API keys only this machine may ask: a request names it and comes from no other site's page."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.types import Scope

from pilothouse.web.problems import Problem

LOCAL_PRINCIPAL = "api:local"
"""Who acts, in the audit, where nobody has to prove who they are."""

READING = frozenset({"GET", "HEAD", "OPTIONS"})


def is_loopback(host: str) -> bool:
    """Whether a name or address (IPv6 with or without brackets) can only mean this machine."""
    name = host.removeprefix("[").removesuffix("]").removesuffix(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def local_refusal(scope: Scope) -> Problem | None:
    """Why a request does not come from this machine's own programs and pages; None where it does.

    A page elsewhere cannot forge the header Host, so a name of its own that it points at this machine (DNS rebinding)
    shows there; and on every request that changes something, a browser tells the page's origin.
    """
    hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
    if len(hosts) != 1 or not _is_local(hosts[0]):
        told = f"the header Host is {', '.join(hosts) or 'missing'}"
        return Problem(403, "forbidden", f"{told}; without API keys only localhost and 127.0.0.1 are answered")
    if scope["method"] not in READING:
        return foreign_origin(scope, hosts[0])
    return None


def foreign_origin(scope: Scope, host: str) -> Problem | None:
    """Why a request was sent by another site's page than those of `host`; None where it was not."""
    origins = [value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"]
    if all(_authority(origin) == host.lower() for origin in origins):
        return None
    return Problem(403, "forbidden", f"the request comes from {origins[0]}, but only pages of {host} may send it")


@lru_cache(maxsize=64)
def _is_local(authority: str) -> bool:
    try:
        return is_loopback(urlsplit(f"//{authority}").hostname or "")
    except ValueError:
        return False


def _authority(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
