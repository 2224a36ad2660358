"""Tools of MCP servers (Model Context Protocol), started as a process or reached by HTTP.

A server's annotations are hints: they choose the effect class of a tool unless `effects` does.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import jsonschema_rs

from pilothouse import payloads
from pilothouse.config import isolated_environment
from pilothouse.domain.effects import Effect
from pilothouse.engine.tools import Tool, ToolOptions
from pilothouse.errors import ConfigError, MayHaveHappened, ToolError

if TYPE_CHECKING:
    from mcp import Client

CONNECT_SECONDS = 30.0
CALL_SECONDS = 60.0


class McpServer:
    """One server. Its tools are named NAME_TOOL; `tools` names those that there are to be (all unless given).

    Give a `command` to start, or the `url` of a server. `secrets` are the variables of the environment that a started
    server sees. `effects` maps tools to effect classes. A server that dies is connected to anew by the next call.
    """

    def __init__(
        self,
        name: str,
        *,
        command: Sequence[str] = (),
        url: str | None = None,
        tools: Sequence[str] | None = None,
        effects: Mapping[str, str] | None = None,
        secrets: Sequence[str] = (),
    ) -> None:
        if bool(command) == (url is not None):
            raise ConfigError(f"MCP server {name!r} needs either a command or a url")
        try:
            self._effects = {tool: Effect(effect) for tool, effect in (effects or {}).items()}
        except ValueError as error:
            raise ConfigError(f"MCP server {name!r}: {error}; effect is one of {', '.join(Effect)}") from error
        self.name = name
        self._command = tuple(command)
        self._url = url
        self._wanted = None if tools is None else frozenset(tools)
        self._secrets = tuple(secrets)
        self._connection: _Connection | None = None

    async def find_tools(self) -> list[Tool]:
        """The server's tools. Raises ToolError where it cannot be reached."""
        listed = await (await self._connected()).run(lambda client: client.list_tools(), changes_the_world=False)
        return [self._tool(tool) for tool in listed.tools if self._wanted is None or tool.name in self._wanted]

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    def _tool(self, found: Any) -> Tool:
        schema = dict(found.input_schema)
        validator = jsonschema_rs.validator_for(schema)

        def validate(arguments: Mapping[str, Any]) -> dict[str, Any]:
            errors = [error.message for error in validator.iter_errors(dict(arguments))]
            if errors:
                raise ToolError(f"the arguments do not fit tool {found.name!r}: {'; '.join(errors[:5])}")
            return dict(arguments)

        effect = self._effect(found)

        async def call(**arguments: Any) -> Any:
            return await self._call(found.name, arguments, changes_the_world=effect.changes_the_world)

        options = ToolOptions(effect=effect, platform=f"mcp:{self.name}", timeout_seconds=CALL_SECONDS)
        name = f"{self.name}_{found.name}"
        call.__qualname__ = name
        return Tool(name, call, found.description or "", options, schema, validate, {}, False)

    def _effect(self, found: Any) -> Effect:
        """Local configuration decides; else what the server says of itself; else it may change the world."""
        if found.name in self._effects:
            return self._effects[found.name]
        hints = found.annotations
        if hints is None:
            return Effect.WRITE
        if hints.read_only_hint:
            return Effect.READ
        if hints.idempotent_hint:
            return Effect.IDEMPOTENT
        return Effect.IRREVERSIBLE if hints.destructive_hint else Effect.WRITE

    async def _call(self, tool: str, arguments: Mapping[str, Any], *, changes_the_world: bool) -> Any:
        connection = await self._connected()
        called = connection.run(
            lambda client: client.call_tool(tool, dict(arguments)), changes_the_world=changes_the_world
        )
        said = await called
        texts = [block.text for block in said.content if getattr(block, "text", None) is not None]
        if said.is_error:
            raise ToolError("\n".join(texts) or f"tool {tool!r} of MCP server {self.name!r} failed")
        return said.structured_content if said.structured_content is not None else _data("\n".join(texts))

    async def _connected(self) -> _Connection:
        loop = asyncio.get_running_loop()
        if self._connection is None or self._connection.is_over or self._connection.loop is not loop:
            told = f"MCP server {self.name!r} ({self._url or shlex.join(self._command)})"
            self._connection = _Connection(told, self._target())
        await self._connection.ready()
        return self._connection

    def _target(self) -> Any:
        if self._url is not None:
            return self._url
        try:
            from mcp import StdioServerParameters
        except ModuleNotFoundError as error:
            raise ConfigError('MCP servers need their client: pip install "pilothouse[mcp]"') from error
        environment = isolated_environment(self._secrets)
        return StdioServerParameters(command=self._command[0], args=list(self._command[1:]), env=environment)


def _data(text: str) -> Any:
    """A server without structured results writes them as text."""
    try:
        return payloads.decode(text)
    except ValueError:
        return text


def _innermost(error: Exception) -> Exception:
    """The first error in groups of them, which say nothing themselves."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


class _Connection:
    """One open connection. It is entered and left by a coroutine of its own, as the protocol's client wants it."""

    def __init__(self, told: str, target: Any) -> None:
        self.loop = asyncio.get_running_loop()
        self._told = told
        self._opened: asyncio.Future[Client] = self.loop.create_future()
        self._closing = asyncio.Event()
        self._living = asyncio.ensure_future(self._live(target))

    @property
    def is_over(self) -> bool:
        return self._closing.is_set() or self._living.done()

    async def ready(self) -> None:
        """Raises ToolError where the server cannot be reached."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await asyncio.shield(self._opened)
        except TimeoutError as error:
            self._closing.set()
            raise ToolError(f"{self._told} did not answer within {CONNECT_SECONDS:g} s") from error

    async def run(self, call: Any, *, changes_the_world: bool) -> Any:
        """What the server answers. Raises ToolError where it refuses or dies; where it dies and the call may have
        changed the world, MayHaveHappened.
        """
        gone = MayHaveHappened if changes_the_world else ToolError
        client = await asyncio.shield(self._opened)
        asking = asyncio.ensure_future(call(client))
        await asyncio.wait([asking, self._living], return_when=asyncio.FIRST_COMPLETED)
        if not asking.done():
            asking.cancel()
            raise gone(f"{self._told} went away during the call; the next one connects anew")
        try:
            return asking.result()
        except Exception as error:  # what the protocol's client raises is told as the tool's failure
            if self._is_broken(error):
                self._closing.set()
                raise gone(f"{self._told} went away during the call; the next one connects anew") from error
            raise ToolError(f"{self._told}: {type(error).__name__}: {error}") from error

    async def close(self) -> None:
        self._closing.set()
        with suppress(TimeoutError, ToolError):
            async with asyncio.timeout(CONNECT_SECONDS):
                await asyncio.shield(self._living)

    @staticmethod
    def _is_broken(error: Exception) -> bool:
        return "closed" in str(error).lower() or "ClosedResource" in type(error).__name__

    async def _live(self, target: Any) -> None:
        from mcp import Client

        try:
            async with Client(target) as client:
                self._opened.set_result(client)
                await self._closing.wait()
        except Exception as error:  # noqa: BLE001 - whatever it was, whoever waits is told, and the next call tries anew
            if not self._opened.done():
                cause = _innermost(error)
                told = f"{self._told} cannot be reached: {type(cause).__name__}: {cause}"
                self._opened.set_exception(ToolError(told))
                self._opened.exception()
