"""Any program as an agent: it runs in a process of its own and finds its models behind an address of this run alone.

The address speaks OpenAI's and Anthropic's protocols and takes only the run's key, so that the program's model calls go
through the gateway without a change to it: metered, limited, kept in the journal. It is served by the worker itself on
its own machine, where the program runs: nothing is reachable from elsewhere, and no other process must be up.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets as random_secrets
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilothouse import payloads
from pilothouse.agents.seams import Question, ask_question
from pilothouse.config import isolated_environment
from pilothouse.engine.agent import SOURCE
from pilothouse.engine.attempt import Attempt
from pilothouse.engine.context import Context
from pilothouse.engine.processes import die_with_parent, kill_group
from pilothouse.errors import ConfigError, FatalError, PilothouseError, RunError

MAX_OUTPUT = 10_000_000
"""Bytes that a program may print as its output."""

MAX_LINE = 8_192
"""Bytes of one line of the log."""

ERROR_LINES = 20
STOP_SECONDS = 2.0
UNSAID = frozenset({"stream", "stream_options", "user", "metadata", "store"})
"""What in a request says nothing about its answer."""


@dataclass(frozen=True, slots=True)
class Program:
    """What is run. `secrets` are the variables of the worker's environment that it sees beside harmless ones."""

    command: Sequence[str]
    folder: Path | None = None
    secrets: tuple[str, ...] = ()


def make_handler(name: str, program: Program) -> Callable[..., Awaitable[Any]]:
    """A handler that gives the program its input on standard input and returns what it prints.

    What it prints is JSON, or text. Raises RunError with its last lines of standard error where it fails.
    """
    if not program.command or isinstance(program.command, str):
        raise ConfigError(f"agent {name!r}: the command is a list, such as ['python', 'bot.py']")

    async def handler(ctx: Context, input: Any) -> Any:
        async with _serving(ctx.attempt_state) as endpoint:
            try:
                return await _run(ctx, program, input, _environment(program, ctx, endpoint))
            except RunError as error:
                if endpoint.refusal is None:
                    raise
                refusal = endpoint.refusal  # what was refused once is refused again
                raise FatalError(f"{refusal}; then the program failed") from error

    handler.__doc__ = " ".join(program.command)
    setattr(handler, SOURCE, payloads.encode([*program.command, _source_of(program)]))
    return handler


def _source_of(program: Program) -> str:
    """The text of the first file that the command names, which is where its behaviour comes from."""
    folder = program.folder or Path.cwd()
    files = (folder / part for part in program.command[1:])
    found = next((file for file in files if file.is_file()), None)
    return "" if found is None else found.read_text(encoding="utf-8", errors="replace")


def _environment(program: Program, ctx: Context, endpoint: Endpoint) -> Mapping[str, str]:
    return {
        **isolated_environment(program.secrets),
        "OPENAI_BASE_URL": f"{endpoint.url}/v1",
        "OPENAI_API_KEY": endpoint.key,
        "ANTHROPIC_BASE_URL": endpoint.url,
        "ANTHROPIC_API_KEY": endpoint.key,
        "PILOTHOUSE_RUN_ID": ctx.run_id,
        "PILOTHOUSE_ATTEMPT": str(ctx.attempt),
    }


# --- the process -------------------------------------------------------------------------------


async def _run(ctx: Context, program: Program, input: Any, environment: Mapping[str, str]) -> Any:
    try:
        process = await asyncio.create_subprocess_exec(
            *program.command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=program.folder,
            env=environment,
            start_new_session=True,
            preexec_fn=die_with_parent,
            limit=MAX_OUTPUT,
        )
    except OSError as error:
        raise FatalError(f"{program.command[0]!r} cannot be started: {error.strerror}") from error
    try:
        lines = asyncio.ensure_future(_log_lines(ctx, process))
        output = await _talk(process, payloads.encode(input).encode())
        code = await process.wait()
        last = await lines
    finally:
        kill_group(process.pid)
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
    if code != 0:
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        raise RunError(f"{' '.join(program.command)} {how}: {' | '.join(last[-3:]) or 'it said nothing'}")
    return _result(output)


async def _talk(process: asyncio.subprocess.Process, input: bytes) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError, ConnectionResetError):  # it may not care for its input
        process.stdin.write(input)
        await process.stdin.drain()
        process.stdin.close()
    output = bytearray()
    while chunk := await process.stdout.read(65_536):
        output += chunk
        if len(output) > MAX_OUTPUT:
            raise FatalError(f"the program printed more than {MAX_OUTPUT:,} bytes")
    return bytes(output)


async def _log_lines(ctx: Context, process: asyncio.subprocess.Process) -> list[str]:
    """Standard error goes into the run's log; its last lines come back."""
    last: list[str] = []
    async for line in _lines(process):
        text = line.decode(errors="replace").rstrip()
        ctx.log(text, level="warning", source="stderr")
        last = [*last, text][-ERROR_LINES:]
    return last


async def _lines(process: asyncio.subprocess.Process) -> AsyncIterator[bytes]:
    """The lines of standard error; what has no end comes in pieces."""
    assert process.stderr is not None
    rest = b""
    while chunk := await process.stderr.read(MAX_LINE):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line
        if len(rest) > MAX_LINE:
            yield rest
            rest = b""
    if rest:
        yield rest


def _result(output: bytes) -> Any:
    text = output.decode(errors="replace").strip()
    try:
        return payloads.decode(text) if text else None
    except ValueError:
        return text


# --- the address of the run --------------------------------------------------------------------


@asynccontextmanager
async def _serving(attempt: Attempt) -> AsyncIterator[Endpoint]:
    """Serves models to whoever has the run's key."""
    import uvicorn

    key = f"ph-run-{random_secrets.token_urlsafe(32)}"
    listening = socket.create_server(("127.0.0.1", 0))
    endpoint = Endpoint(attempt, f"http://127.0.0.1:{listening.getsockname()[1]}", key)
    config = uvicorn.Config(endpoint.app(), log_config=None, access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    server.capture_signals = suppress  # type: ignore[assignment]  # the worker's own signals are not the server's
    serving = asyncio.ensure_future(server.serve(sockets=[listening]))
    try:
        yield endpoint
    finally:
        server.should_exit = server.force_exit = True
        await asyncio.wait([serving], timeout=STOP_SECONDS)
        listening.close()


class Endpoint:
    """OpenAI's two protocols and Anthropic's in front of one attempt's models.

    `refusal` is why the latest question can have no answer.
    """

    def __init__(self, attempt: Attempt, url: str, key: str) -> None:
        self.url = url
        self.key = key
        self.refusal: PilothouseError | None = None
        self._attempt = attempt

    def app(self) -> Any:
        from starlette.applications import Starlette
        from starlette.routing import Route

        from pilothouse.llm.wire import PROTOCOLS

        return Starlette(routes=[Route(path, self._serve, methods=["POST"]) for path in PROTOCOLS])

    async def _serve(self, request: Any) -> Any:
        from starlette.responses import JSONResponse, StreamingResponse

        from pilothouse.llm.wire import PROTOCOLS
        from pilothouse.llm.wire.request import BadRequest, key_of

        body, given, protocol = await request.body(), key_of(request.headers), PROTOCOLS[request.url.path]
        if not hmac.compare_digest(given.encode(), self.key.encode()):
            return JSONResponse(protocol.error(401, "this address takes the key of its own run only"), 401)
        try:
            parsed = json.loads(body)
            asked = protocol.read(parsed)
        except (ValueError, BadRequest, KeyError, TypeError) as error:
            return JSONResponse(protocol.error(400, str(error)), 400)
        question = Question(self._route(asked.model), asked.messages, asked.parameters, asked.settings)
        facts = {name: value for name, value in parsed.items() if name not in UNSAID}
        name = f"model.{payloads.digest(payloads.encode(facts))}"
        asking = asyncio.ensure_future(ask_question(self._attempt, name, question, facts))
        self._attempt.own(asking)
        await asyncio.wait([asking])
        if asking.cancelled():
            return JSONResponse(protocol.error(503, "the run waits, and its program is stopped meanwhile"), 503)
        try:
            response = asking.result()
        except PilothouseError as error:
            self.refusal = error if isinstance(error.__cause__, FatalError) else None
            return JSONResponse(protocol.error(400, str(error)), 400)
        if asked.is_stream:
            return StreamingResponse(iter(protocol.events(response, asked.model)), media_type="text/event-stream")
        return JSONResponse(protocol.render(response, asked.model))

    def _route(self, model: str) -> str | None:
        """The agent's own route, else what the program names: a route, or a model of OpenAI's or Anthropic's."""
        own = self._attempt.agent.options.model
        if own is not None or model == "default":
            return own
        if ":" in model:
            return model
        return f"anthropic:{model}" if model.startswith("claude") else f"openai:{model}"
