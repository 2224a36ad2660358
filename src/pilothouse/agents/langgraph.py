"""Graphs of LangGraph: their checkpoints are kept in the run's journal, their tools become steps.

A graph goes on from its last super-step. Inside a node, `ChatModel` asks the gateway, so that a node that is run again
does not pay again; tools of a `ToolNode` are wrapped, those of graphs inside the graph too.
"""

from __future__ import annotations

import asyncio
import base64
import copy
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage, convert_to_openai_messages
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.errors import GraphRecursionError
from langgraph.graph.state import CompiledStateGraph, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.prebuilt.tool_node import ToolCallRequest
from langgraph.types import Command, Interrupt
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from pilothouse import payloads
from pilothouse.agents.declared import Declarations, KnownTool
from pilothouse.agents.seams import Calls, Question, ask_model, call_tool
from pilothouse.engine.agent import SOURCE
from pilothouse.engine.attempt import Attempt
from pilothouse.engine.context import Context
from pilothouse.engine.steps import store
from pilothouse.errors import ConfigError, FatalError, ToolError
from pilothouse.llm.wire import openai as wire

GRAPH_KIND = "graph"
ID_SHOWN = 12

current_attempt: ContextVar[Attempt] = ContextVar("pilothouse_attempt")


class ChatModel(BaseChatModel):
    """A LangChain chat model that asks the gateway, inside a run. `route` is a route or a model as `provider:name`."""

    route: str | None = None

    @property
    def _llm_type(self) -> str:
        return "pilothouse"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    def with_structured_output(self, schema: Any, *, include_raw: bool = False, **kwargs: Any) -> Runnable[Any, Any]:
        """Answers in the form of `schema`, whichever model answers in the end."""
        if include_raw:
            return super().with_structured_output(schema, include_raw=True, **kwargs)
        form = {"type": "json_schema", "json_schema": {"schema": convert_to_json_schema(schema)}}
        is_model = isinstance(schema, type) and issubclass(schema, BaseModel)
        parser = PydanticOutputParser(pydantic_object=schema) if is_model else JsonOutputParser()
        return self.bind(response_format=form) | parser

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        """In a plain node, which runs in a thread of its own; the loop asks meanwhile."""
        if _is_on_a_loop():
            raise FatalError("a model that is asked with invoke in an async node would hold up all runs; use ainvoke")
        attempt = _attempt()
        asking = asyncio.run_coroutine_threadsafe(
            _owned(attempt, self._asked(attempt, messages, run_manager, {"stop": stop, **kwargs})), attempt.loop
        )
        return asking.result()

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return await self._asked(_attempt(), messages, run_manager, {"stop": stop, **kwargs})

    async def _asked(
        self,
        attempt: Attempt,
        messages: list[BaseMessage],
        run_manager: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None,
        kwargs: Mapping[str, Any],
    ) -> ChatResult:
        body = {
            "model": self.route or "default",
            "messages": convert_to_openai_messages(messages),
            "tools": kwargs.get("tools", []),
            "response_format": kwargs.get("response_format"),
            "tool_choice": kwargs.get("tool_choice"),
            "stop": kwargs.get("stop"),
        }
        asked = wire.read(body)
        question = Question(self.route, asked.messages, asked.parameters, asked.settings)
        response = await ask_model(attempt, f"{_place(run_manager)}.model", question)
        calls = [
            {"name": call.tool_name, "args": call.args_as_dict(), "id": call.tool_call_id}
            for call in response.tool_calls
        ]
        usage = response.usage
        counted = {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "total_tokens": usage.input_tokens + usage.output_tokens,
        }
        message = AIMessage(content=response.text or "", tool_calls=calls, usage_metadata=counted)
        return ChatResult(generations=[ChatGeneration(message=message)])


def _attempt() -> Attempt:
    attempt = current_attempt.get(None)
    if attempt is None:
        raise FatalError("a ChatModel answers inside a run only: register the graph with app.add_agent")
    return attempt


def _is_on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _owned(attempt: Attempt, asking: Awaitable[ChatResult]) -> ChatResult:
    """Ends with the attempt, so that no thread waits for an answer for ever."""
    task = asyncio.current_task()
    assert task is not None
    attempt.own(task)
    return await asking


def _place(run_manager: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None) -> str:
    """The node and its turn, as LangGraph names them: the same when the node is run again."""
    metadata = (run_manager.metadata if run_manager is not None else None) or {}
    node, _, turn = str(metadata.get("langgraph_checkpoint_ns", "graph")).rpartition("|")[2].partition(":")
    return f"{node}.{turn[-ID_SHOWN:]}" if turn else node


class JournalSaver(InMemorySaver):
    """A checkpointer on the run's journal: what it holds in memory comes from there, and goes there first."""

    def __init__(self, attempt: Attempt) -> None:
        super().__init__()
        self._attempt = attempt
        self._numbers: dict[str, int] = {}
        for key, record in _records(attempt):
            match key[0]:
                case "put":
                    super().put(*self._loaded(record))
                case "interrupt":
                    self._numbers[key[1]] = int(record[0])
                case _:
                    super().put_writes(*self._loaded(record))
        self.is_empty = not self.storage

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        values = {name: value for name, value in checkpoint["channel_values"].items() if name in new_versions}
        changed: Checkpoint = {**checkpoint, "channel_values": values}
        await self._keep("put", checkpoint["id"], (_bare(config), changed, metadata, new_versions))
        return super().put(config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        place = str(config["configurable"].get("checkpoint_id", ""))
        await self._keep("writes", f"{place}.{task_id}", (_bare(config), list(writes), task_id, task_path))
        super().put_writes(config, writes, task_id, task_path)

    async def number_of(self, interrupt: Interrupt) -> int:
        """Which one of the run's interrupts it is, from 1; the same in every attempt."""
        if interrupt.id not in self._numbers:
            self._numbers[interrupt.id] = len(self._numbers) + 1
            await self._store("interrupt", interrupt.id, [str(self._numbers[interrupt.id])])
        return self._numbers[interrupt.id]

    async def _keep(self, what: str, id: str, arguments: tuple[Any, ...]) -> None:
        kind, content = self.serde.dumps_typed(arguments)
        await self._store(what, id, [kind, base64.b64encode(content).decode()])

    async def _store(self, what: str, id: str, record: list[str]) -> None:
        attempt = self._attempt
        if attempt.stop_reason is not None:
            await attempt.refuse_if_stopped()
        key = attempt.unique(f"graph.{what}.{id}")
        asked, stored = attempt.journal.open(key, GRAPH_KIND, {"graph": key})
        if stored is None:
            await store(attempt, asked, payloads.encode(record))

    def _loaded(self, record: list[str]) -> tuple[Any, ...]:
        loaded: tuple[Any, ...] = tuple(self.serde.loads_typed((record[0], base64.b64decode(record[1]))))
        return loaded


def _records(attempt: Attempt) -> Iterator[tuple[list[str], list[str]]]:
    """What earlier attempts have kept, in the order in which it was."""
    for row in attempt.journal.finished(GRAPH_KIND):
        attempt.unique(row["key"])  # what comes anew under this key is another write
        yield row["key"].removeprefix("graph.").split(".", 1), payloads.decode(row["result"])


def _bare(config: RunnableConfig) -> RunnableConfig:
    """What a checkpoint is found by, without what cannot be kept."""
    found = config["configurable"]
    names = ("thread_id", "checkpoint_ns", "checkpoint_id")
    return {"configurable": {name: found[name] for name in names if name in found}}


def make_handler(name: str, graph: Any, declarations: Declarations) -> Callable[..., Awaitable[Any]]:
    """A handler that takes the graph's input and returns its final state.

    An `interrupt()` waits for the signal `interrupt-1` (`-2`, …); its payload is what the interrupt returns.
    Raises ConfigError for a graph with breakpoints, which would end the run in its middle, and for what is declared of
    a tool and cannot be.
    """
    declarations.check(_tools_in(graph), are_all=False)
    if getattr(graph, "interrupt_before_nodes", None) or getattr(graph, "interrupt_after_nodes", None):
        raise ConfigError(
            f"graph {name!r} has breakpoints (interrupt_before, interrupt_after); use interrupt() in a node"
        )

    async def handler(ctx: Context, input: dict[str, Any]) -> Any:
        attempt = ctx.attempt_state
        saver = JournalSaver(attempt)
        compiled = _compiled(graph, saver, Calls(attempt, declarations))
        config: RunnableConfig = {"configurable": {"thread_id": ctx.run_id}}
        token = current_attempt.set(attempt)
        try:
            given: Any = input if saver.is_empty else None
            while True:
                state = await compiled.ainvoke(given, config, durability="sync")
                interrupts = state.pop("__interrupt__", None) if isinstance(state, dict) else None
                if not interrupts:
                    return _plain_state(state)
                given = Command(resume=await _answers(ctx, saver, interrupts))
        except GraphRecursionError as error:
            raise FatalError(f"graph {name!r} gave up: {error}") from error  # it would do so again from where it is
        finally:
            current_attempt.reset(token)

    handler.__doc__ = name
    setattr(handler, SOURCE, payloads.encode([name, *sorted(getattr(graph, "nodes", {}))]))
    return handler


async def _answers(ctx: Context, saver: JournalSaver, interrupts: Sequence[Interrupt]) -> dict[str, Any]:
    """What people say to each of the interrupts, once all have been answered."""
    names = [f"interrupt-{await saver.number_of(each)}" for each in interrupts]
    for name, interrupt in zip(names, interrupts, strict=True):
        ctx.log(f"the graph was interrupted: {interrupt.value}", signal=name)
    said = await asyncio.gather(*(ctx.wait_for(name) for name in names))
    return {interrupt.id: answer for interrupt, answer in zip(interrupts, said, strict=True)}


def _compiled(graph: Any, saver: JournalSaver, calls: Calls) -> Any:
    """The graph with our checkpointer and its tools as steps."""
    compiled = graph.compile() if isinstance(graph, StateGraph) else graph
    if not isinstance(compiled, CompiledStateGraph):
        raise FatalError(f"a {type(graph).__name__} cannot be run; give a StateGraph or a compiled one")
    bound = _with_steps(compiled, calls)
    bound.checkpointer = saver
    return bound


def _with_steps(graph: CompiledStateGraph[Any, Any, Any, Any], calls: Calls) -> Any:
    """A copy of the graph whose tools are steps."""
    bound = copy.copy(graph)
    bound.nodes = {name: _node_with_steps(node, calls) for name, node in graph.nodes.items()}
    return bound


def _node_with_steps(node: Any, calls: Calls) -> Any:
    """The node itself, unless it is a `ToolNode` or another graph."""
    match getattr(node, "bound", None):
        case ToolNode() as tools:
            return node.copy({"bound": _tools_as_steps(tools, calls)})
        case CompiledStateGraph() as inner:
            bound = _with_steps(inner, calls)
            return node.copy({"bound": bound, "subgraphs": [bound]})
    return node


def _tools_in(graph: Any) -> Iterator[KnownTool]:
    """Those of its tool nodes, and of the graphs inside it; of a StateGraph as of one that is compiled."""
    for node in getattr(graph, "nodes", {}).values():
        match getattr(node, "bound", None) or getattr(node, "runnable", None):
            case ToolNode() as tools:
                yield from map(_known, tools.tools_by_name.values())
            case CompiledStateGraph() as inner:
                yield from _tools_in(inner)


def _known(tool: BaseTool) -> KnownTool:
    return KnownTool(tool.name, tool.metadata, tool.args)


def _tools_as_steps(tools: ToolNode, calls: Calls) -> ToolNode:
    return ToolNode(
        list(tools.tools_by_name.values()),
        name=tools.name or "tools",
        handle_tool_errors=tools._handle_tool_errors,
        messages_key=tools._messages_key,
        awrap_tool_call=_journaling(calls, tools._awrap_tool_call),
    )


def _journaling(calls: Calls, inner: Any) -> Any:
    """What stands around every call of a tool: ours, and around that what the node had."""
    serde = JsonPlusSerializer()

    async def wrap(request: ToolCallRequest, execute: Callable[[ToolCallRequest], Awaitable[Any]]) -> Any:
        asked = request.tool_call
        tool = calls.tool(
            KnownTool(asked["name"], None, asked["args"]) if request.tool is None else _known(request.tool)
        )

        async def call(given: dict[str, Any]) -> list[str]:
            own = request if given == asked["args"] else request.override(tool_call={**asked, "args": given})
            said = await (execute(own) if inner is None else inner(own, execute))
            kind, content = serde.dumps_typed(said)
            return [kind, base64.b64encode(content).decode()]

        name = f"{asked['name']}.{str(asked['id'])[-ID_SHOWN:]}"
        try:
            kind, content = await call_tool(calls.attempt, name, tool, asked["args"], call)
        except ToolError as error:
            return ToolMessage(str(error), tool_call_id=asked["id"], name=asked["name"], status="error")
        return serde.loads_typed((kind, base64.b64decode(content)))

    return wrap


def _plain_state(state: Any) -> Any:
    return to_jsonable_python(state, fallback=_dumped, serialize_unknown=True)


def _dumped(value: Any) -> Any:
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else str(value)
