"""`fake-provider`: a model provider for tests and trials."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.text import Text

from pilothouse.cli.output import AsJson, console, print_json
from pilothouse.llm import extra
from pilothouse.platform import bind

MILLISECONDS = 1000
STOP_SECONDS = 1
"""How long it waits for its answers when it is stopped: one that is scripted to time out would take an hour."""


def fake_provider(
    *,
    port: Annotated[int, Parameter(help="Where it listens; 0 takes any free port.")] = 8090,
    host: Annotated[str, Parameter(help="The address it listens at.")] = "127.0.0.1",
    script: Annotated[Path | None, Parameter(help="A YAML script of answers; without one it echoes.")] = None,
    latency_ms: Annotated[float, Parameter(help="How long every answer takes, in milliseconds.")] = 0.0,
    fault_rate: Annotated[float, Parameter(help="The share of answers that fail, from 0 to 1.")] = 0.0,
    seed: Annotated[int, Parameter(help="Makes the choice of faults repeatable.")] = 0,
    key: Annotated[str | None, Parameter(help="The only API key that is accepted; any unless given.")] = None,
    as_json: AsJson = False,
) -> None:
    """A model provider that speaks OpenAI's and Anthropic's protocols, for tests and trials without a bill."""
    extra.require()
    import uvicorn

    from pilothouse.llm.fake_provider import FakeProvider
    from pilothouse.llm.script import echo, load_script

    responder = echo if script is None else load_script(script)
    provider = FakeProvider(responder, latency_ms / MILLISECONDS, fault_rate, key, seed)
    listening = bind(host, port)
    url = f"http://{host}:{listening.getsockname()[1]}"
    _announce(url, as_json)
    config = uvicorn.Config(
        provider.app(), log_level="error", access_log=False, lifespan="off", timeout_graceful_shutdown=STOP_SECONDS
    )
    uvicorn.Server(config).run(sockets=[listening])


def _announce(url: str, as_json: bool) -> None:
    if as_json:
        print_json({"url": url, "openai": f"{url}/v1", "anthropic": url})
        return
    out = console()
    out.print(Text.assemble(("The fake provider is up", "bold green"), " at ", (url, "bold")), soft_wrap=True)
    out.print(f"  OpenAI      export OPENAI_BASE_URL={url}/v1 OPENAI_API_KEY=any", soft_wrap=True)
    out.print(f"  Anthropic   export ANTHROPIC_BASE_URL={url} ANTHROPIC_API_KEY=any", soft_wrap=True)
    out.print("  stop        Ctrl-C\n", style="dim")
