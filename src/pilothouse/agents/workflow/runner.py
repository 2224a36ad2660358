"""Runs a workflow: goes from node to node, each a step, so that a run resumes where it was."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Coroutine, Iterable, Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from pilothouse.agents.workflow.definition import Workflow
from pilothouse.agents.workflow.expressions import expression, fill_argument, template
from pilothouse.agents.workflow.format import END, START, MapNode, NodeSpec
from pilothouse.agents.workflow.plan import Way
from pilothouse.engine.context import Context
from pilothouse.engine.models import ModelOptions
from pilothouse.engine.tool_calls import ToolStep
from pilothouse.errors import ApprovalRejected, FatalError, RevisionRequested

State = dict[str, Any]
SCALARS = frozenset({str, int, float, bool, type(None)})


class WorkflowRun:
    """One run of a workflow in one attempt. The state follows from the results of the nodes, so it is kept nowhere."""

    def __init__(self, workflow: Workflow, ctx: Context, given: Mapping[str, Any]) -> None:
        self._workflow = workflow
        self._ctx = ctx
        self._state = workflow.initial_state(given)
        self._visits = dict[str, int]()
        self._nodes = 0
        self._rounds = Counter[str]()
        self._has_failed = False
        self._forks = 0

    async def run(self) -> Any:
        """From START to END; what the workflow's output says of the state then."""
        memory = self._workflow.spec.memory.fields
        for name in memory:
            kept = await self._ctx.recall(name)
            if kept is not None:
                self._state[name] = kept
        await self._go(START, END)
        for name in memory:
            if name in self._state:
                await self._ctx.remember(name, self._state[name])
        return self._output()

    def _output(self) -> Any:
        match self._workflow.spec.output:
            case None:
                return {name: value for name, value in self._state.items() if name in self._workflow.spec.state}
            case str() as name:
                return self._state.get(name)
            case names:
                return {name: self._state.get(name) for name in names}

    async def _go(self, node: str, stop: str) -> None:
        """From a node, which is left out, to `stop`."""
        while True:
            way = self._workflow.plan.ways[node]
            node = await self._fork(way) if way.is_fork else self._next(node, way)
            if node in (stop, END):
                return
            await self._visit(node)

    async def _fork(self, way: Way) -> str:
        """Where the branches have come together."""
        await self._together(self._branch(target, way.join) for target in way.targets)
        return way.join

    async def _branch(self, node: str, join: str) -> None:
        if node not in (join, END):
            await self._visit(node)
            await self._go(node, join)

    def _next(self, node: str, way: Way) -> str:
        if way.routes:
            return self._route(way)
        return way.targets[0] if way.loop is None else self._turn(node, way)

    async def _together(self, branches: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
        """The results of all. Where one fails, the others end the node that they are at, and begin no other.

        Without that an effect of theirs would be cut short, and nobody could say whether it took place.
        """
        tasks = [asyncio.ensure_future(branch) for branch in branches]
        self._forks += 1
        try:
            return list(await asyncio.gather(*tasks))
        except Exception:
            self._has_failed = True
            await self._ctx.attempt_state.until_calm()
            raise
        finally:
            self._forks -= 1
            for task in tasks:
                task.cancel()

    def _route(self, way: Way) -> str:
        for route in way.routes:
            if expression(route.when).value(self._state):
                return route.to
        assert way.default is not None
        return way.default

    def _turn(self, node: str, way: Way) -> str:
        """Once more around, or on."""
        loop = way.loop
        assert loop is not None
        self._rounds[node] += 1
        if self._rounds[node] >= loop.max or expression(loop.until).value(self._state):
            self._rounds[node] = 0
            return loop.to
        return loop.back_to or node

    # --- nodes -----------------------------------------------------------------------------

    async def _visit(self, name: str) -> None:
        if self._has_failed:
            await asyncio.get_running_loop().create_future()
        node, limit = self._workflow.spec.nodes[name], self._workflow.spec.limits.max_nodes
        self._visits[name] = visits = self._visits.get(name, 0) + 1
        self._nodes += 1
        if self._nodes > limit:
            raise FatalError(f"the run went through {limit} nodes (limits.max_nodes); look for a loop, or raise it")
        step = name if visits == 1 else f"{name}-{visits}"
        result = await self._do_map(step, node.map, name) if node.map else await self._do(step, node, self._state, name)
        self._write(name, node, _plain(result))

    def _write(self, name: str, node: NodeSpec, result: Any) -> None:
        for field in node.written:
            if isinstance(node.writes, list) and not (isinstance(result, dict) and field in result):
                raise FatalError(f"the result of node {name!r} has no field {field!r} to write")
            value = result[field] if isinstance(node.writes, list) else result
            self._state[field] = self._checked(name, field, value)

    def _checked(self, name: str, field: str, value: Any) -> Any:
        type = self._workflow.fields[field]
        try:
            return _plain(self._workflow.adapters[field].validate_python(value))
        except ValidationError as error:
            told = "; ".join(item["msg"] for item in error.errors()[:3])
            raise FatalError(f"node {name!r} wrote into {field!r}, which is {type.one}: {told}") from error

    async def _do_map(self, step: str, spec: MapNode, name: str) -> list[Any]:
        items = expression(spec.over).value(self._state)
        if not isinstance(items, list):
            raise FatalError(f"node {name!r} goes over {spec.over!r}, which is no list: {str(items)[:100]}")
        room = asyncio.Semaphore(spec.at_once)

        async def do(place: int, item: Any) -> Any:
            async with room:
                if self._has_failed:
                    return None
                return await self._do(f"{step}[{place}]", spec.do, {**self._state, spec.item: item}, name)

        return await self._together(do(place, item) for place, item in enumerate(items))

    def _do(self, step: str, node: NodeSpec, state: State, name: str) -> Awaitable[Any]:
        doing = self._do_alone(step, node, state, name)
        return self._busy_with(doing) if self._forks else doing

    async def _busy_with(self, doing: Awaitable[Any]) -> Any:
        """So that a wait in another branch does not suspend the run meanwhile, and one that fails waits for its end."""
        with self._ctx.attempt_state.busy():
            return await doing

    def _do_alone(self, step: str, node: NodeSpec, state: State, name: str) -> Awaitable[Any]:
        match node.kind:
            case "python":
                return self._call_python(step, node, fill_argument(node.arguments, state))
            case "model":
                return self._ask(step, node, state, name)
            case "tool":
                return self._call_tool(step, node, fill_argument(node.arguments, state))
            case "agent":
                return self._call_agent(step, node, fill_argument(node.arguments, state))
            case "approve":
                return self._approve(step, node, state)
            case "wait":
                assert node.wait is not None
                return self._ctx.wait_for(node.wait.signal, timeout_seconds=node.wait.timeout_seconds)
            case _:
                assert node.sleep is not None
                return self._ctx.sleep(step, **node.sleep.model_dump())

    async def _ask(self, step: str, node: NodeSpec, state: State, name: str) -> Any:
        spec = node.model
        assert spec is not None
        options: ModelOptions = {
            "tools": spec.tools,
            "max_rounds": spec.max_rounds,
            "max_tool_calls": spec.max_tool_calls,
        }
        if spec.system is not None:
            options["system"] = template(spec.system).render(state)
        for option in ("max_tokens", "temperature", "cache_seconds"):
            if getattr(spec, option) is not None:
                options[option] = getattr(spec, option)
        if spec.route or self._workflow.spec.model:
            options["model"] = str(spec.route or self._workflow.spec.model)
        result = self._workflow.results[name]
        type = result.item if node is not self._workflow.spec.nodes[name] else result
        assert type is not None
        return await self._ctx.llm(step, template(spec.prompt).render(state), output=type.python(), **options)

    async def _call_tool(self, step: str, node: NodeSpec, arguments: Mapping[str, Any]) -> Any:
        attempt = self._ctx.attempt_state
        tool = await attempt.agent.toolbox.find(str(node.tool))
        if node.retry.attempts > 1 or node.timeout_seconds is not None:
            timeout = node.timeout_seconds or tool.options.timeout_seconds
            tool = replace(tool, options=replace(tool.options, retry=node.retry.policy, timeout_seconds=timeout))
        return await ToolStep(attempt, step, tool, "code").run(arguments)

    def _call_python(self, step: str, node: NodeSpec, arguments: Mapping[str, Any]) -> Awaitable[Any]:
        function = self._workflow.functions[str(node.python)]
        return self._ctx.step(
            step, function, retry=node.retry.policy, timeout_seconds=node.timeout_seconds, **arguments
        )

    async def _call_agent(self, step: str, node: NodeSpec, arguments: Any) -> Any:
        child = await self._ctx.start(str(node.agent), arguments, name=step)
        return await child.result()

    async def _approve(self, step: str, node: NodeSpec, state: State) -> Any:
        spec = node.approve
        assert spec is not None
        is_number = isinstance(spec.amount_usd, float)
        amount = spec.amount_usd if is_number else expression(str(spec.amount_usd)).value(state)
        title = template(spec.title).render(state)
        arguments = None if spec.arguments is None else fill_argument(spec.arguments, state)
        try:
            approved = await self._ctx.approve(
                step,
                title=title,
                recommendation=template(spec.recommendation).render(state) or title,
                reasoning=template(spec.reasoning).render(state),
                risk=spec.risk,
                amount_usd=float(amount or 0.0),
                people_affected=spec.people_affected,
                billing=spec.billing,
                reversible=spec.reversible,
                arguments=arguments,
                deadline_hours=None if spec.timeout_seconds is None else spec.timeout_seconds / 3600,
                on_deadline=spec.on_deadline,
            )
        except (ApprovalRejected, RevisionRequested) as error:
            return {"approved": False, "note": error.note}
        return {"approved": True, "note": approved.note}


def _plain(value: Any) -> Any:
    """As JSON has it."""
    return value if value.__class__ in SCALARS else to_jsonable_python(value)
