"""Providers: how a model of each is reached, with which key, by Pydantic AI's own model classes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

from pilothouse.config import environment_value
from pilothouse.domain.providers import BASE_URL_VARIABLES, KNOWN, Provider
from pilothouse.domain.routes import OFFLINE, ModelId
from pilothouse.errors import ConfigError
from pilothouse.llm.offline import find_responder, make_offline_model
from pilothouse.llm.script import Responder
from pilothouse.telemetry import tracing

if TYPE_CHECKING:
    from ssl import SSLContext

    import httpx2
    from pydantic_ai.models import Model

NO_KEY = "none"
"""What a server that asks for no key is given: the clients insist on something."""

CONNECT_SECONDS = 10.0
MAX_CONNECTIONS = 512
CALLS_OF_CLIENT = 4
"""Before each request a client asks the system about every connection that it holds and does not use: with 64 questions
at once, a third of all the time that they take. So only so many share one.
"""

MAX_CLIENTS = MAX_CONNECTIONS // CALLS_OF_CLIENT
"""Of one model with one key; beyond them, more questions share a client."""


class Key(NamedTuple):
    """One API key of a provider. `mark` tells keys apart where the key itself must not be seen."""

    variable: str
    secret: str

    @property
    def mark(self) -> str:
        return hashlib.sha256(self.secret.encode()).hexdigest()[:8]

    def __str__(self) -> str:
        return f"the key in {self.variable}" if self.variable else "its key"


OWN_KEY = Key("", "own")
"""Stands for the key of a model that brings its own."""


@dataclass(slots=True)
class _Seat:
    """A model with a client of its own, and how many ask it now."""

    model: Model
    asking: int = 0


OnHeaders = Callable[[ModelId, Key, Mapping[str, str]], None]
"""Is told the headers of every answer."""


class Providers:
    """Makes models when they are needed and keeps them; the keys of a provider take turns."""

    def __init__(self, own: Mapping[str, Provider], responders: Mapping[str, Responder]) -> None:
        self.on_headers: OnHeaders = lambda _id, _key, _headers: None
        self._own = dict(own)
        self._responders = dict(responders)
        self._seats: dict[tuple[ModelId, str], list[_Seat]] = {}
        self._clients: list[httpx2.AsyncClient] = []
        self._turn = count()

    def provider(self, name: str) -> Provider:
        """Raises ConfigError for a provider that nobody has described."""
        known, own = KNOWN.get(name), self._own.get(name)
        if own is None and known is None:
            raise ConfigError(
                f"provider {name!r} is not known; use {', '.join(sorted(KNOWN))}, or describe it: "
                f'[providers.{name}] base_url = "https://…/v1"'
            )
        if own is None:
            assert known is not None
            return known
        if known is None:
            return own
        is_plain = own.protocol == "openai"
        return replace(own, protocol=known.protocol if is_plain else own.protocol, keys=own.keys or known.keys)

    def keys(self, name: str) -> Sequence[Key]:
        """The keys that are set, the one whose turn it is first; where none is needed, a stand-in for one."""
        if name == OFFLINE:
            return [Key("", NO_KEY)]
        provider = self.provider(name)
        found = [Key(each, secret) for each in provider.keys if (secret := environment_value(each))]
        if not found:
            needs_key = name in KNOWN and KNOWN[name].keys and self._base_url(name) is None
            return [] if needs_key else [Key("", NO_KEY)]
        first = next(self._turn) % len(found)
        return found[first:] + found[:first]

    @contextmanager
    def model(self, id: ModelId, key: Key) -> Iterator[Model]:
        """A model to ask something. Raises ConfigError where its class is not installed or its name says nothing."""
        seat = self._seat(id, key)
        seat.asking += 1
        try:
            yield seat.model
        finally:
            seat.asking -= 1

    def _seat(self, id: ModelId, key: Key) -> _Seat:
        """The first that has room, so that few connections are in use, and often; else a new one."""
        seats = self._seats.setdefault((id, key.mark), [])
        for seat in seats:
            if seat.asking < CALLS_OF_CLIENT:
                return seat
        if len(seats) >= MAX_CLIENTS:
            return min(seats, key=lambda seat: seat.asking)
        seats.append(_Seat(self._make(id, key)))
        return seats[-1]

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()
        self._clients.clear()
        self._seats.clear()

    def _base_url(self, name: str) -> str | None:
        own = self._own.get(name)
        if own is not None and own.base_url is not None:
            return own.base_url
        return environment_value(BASE_URL_VARIABLES[name]) if name in BASE_URL_VARIABLES else None

    def _make(self, id: ModelId, key: Key) -> Model:
        if id.provider == OFFLINE:
            return make_offline_model(id.name, self._responders.get(id.name) or find_responder(id.name))
        provider = self.provider(id.provider)
        client = self._client(id, key)
        match provider.protocol:
            case "openai":
                return _openai_model(id, key.secret, self._base_url(id.provider), client)
            case "anthropic":
                return _anthropic_model(id, key.secret, self._base_url(id.provider), client)
            case "google":
                return _google_model(id, key.secret, self._base_url(id.provider), client)

    def _client(self, id: ModelId, key: Key) -> httpx2.AsyncClient:
        import httpx2

        async def hear(response: httpx2.Response) -> None:
            self.on_headers(id, key, response.headers)

        async def tell_trace(request: httpx2.Request) -> None:
            request.headers.update(tracing.headers())

        client = httpx2.AsyncClient(
            verify=_trusted(),
            timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS),  # the gateway's own time-out is the one that counts
            limits=httpx2.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS),
            event_hooks={"request": [tell_trace], "response": [hear]},
            follow_redirects=True,
        )
        self._clients.append(client)
        return client


@lru_cache(maxsize=1)
def _trusted() -> SSLContext:
    """Whose certificates are trusted; reading them takes longer than a question."""
    import httpx2

    return httpx2.create_ssl_context()


# The clients' own retries are off: the gateway alone tries again. Off for good and not for each request, for which the
# clients would make a copy of themselves.


def _openai_model(id: ModelId, secret: str, base_url: str | None, client: httpx2.AsyncClient) -> Model:
    from openai import AsyncOpenAI
    from pydantic_ai.models.openai import OpenAIChatModel

    known = KNOWN.get(id.provider)
    url = base_url or (known.base_url if known is not None else None)
    own = AsyncOpenAI(api_key=secret, base_url=url, http_client=client, max_retries=0)
    return OpenAIChatModel(id.name, provider=_openai_provider(id, base_url, own))


def _openai_provider(id: ModelId, base_url: str | None, client: Any) -> Any:
    """The provider's own class, which knows what its models can do; at another address it is any compatible one."""
    if id.provider == "openai":
        from pydantic_ai.providers.openai import OpenAIProvider

        return OpenAIProvider(openai_client=client)
    if base_url is None and id.provider == "deepseek":
        from pydantic_ai.providers.deepseek import DeepSeekProvider

        return DeepSeekProvider(openai_client=client)
    if base_url is None and id.provider == "openrouter":
        from pydantic_ai.providers.openrouter import OpenRouterProvider

        return OpenRouterProvider(openai_client=client)
    if base_url is None and id.provider == "cerebras":
        from pydantic_ai.providers.cerebras import CerebrasProvider

        return CerebrasProvider(openai_client=client)
    from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

    return OpenAICompatibleProvider(id.provider, openai_client=client)


def _anthropic_model(id: ModelId, secret: str, base_url: str | None, client: httpx2.AsyncClient) -> Model:
    from anthropic import AsyncAnthropic
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    own = AsyncAnthropic(api_key=secret, base_url=base_url, http_client=client, max_retries=0)
    return AnthropicModel(id.name, provider=AnthropicProvider(anthropic_client=own))


def _google_model(id: ModelId, secret: str, base_url: str | None, client: httpx2.AsyncClient) -> Model:
    try:
        from pydantic_ai.models.google import GoogleModel
        from pydantic_ai.providers.google import GoogleProvider
    except ImportError as error:
        raise ConfigError(f'model {id} needs Google\'s client: pip install "pilothouse[google]"') from error
    return GoogleModel(id.name, provider=GoogleProvider(api_key=secret, base_url=base_url, http_client=client))
