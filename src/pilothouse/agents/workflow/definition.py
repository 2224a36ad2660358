"""A workflow that has been read and checked: nothing in it can turn out to be misspelt when it runs."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model
from pydantic_core import to_jsonable_python

from pilothouse.agents.workflow.expressions import NUMBERS, Expression, ExpressionProblem, Template, check_argument
from pilothouse.agents.workflow.format import END, START, ApproveNode, FieldSpec, NodeSpec, WorkflowSpec
from pilothouse.agents.workflow.parsing import parse
from pilothouse.agents.workflow.plan import Plan, branches_of, make_plan, written_before
from pilothouse.agents.workflow.source import Location, Problem, Source, read_source, suggestion
from pilothouse.agents.workflow.types import (
    ANY,
    TEXT,
    TRUTH,
    Type,
    TypeProblem,
    TypeReader,
    default_of,
    has_default,
)

DECISION = Type("object", fields={"approved": TRUTH, "note": TEXT}, name="Decision")


@dataclass(frozen=True, slots=True)
class Workflow:
    """`fields` are the types of input and state, with their `adapters` and `defaults`.

    `results` are the types of what the nodes give, `functions` what the Python nodes call.
    """

    spec: WorkflowSpec
    source: Source
    plan: Plan
    fields: Mapping[str, Type]
    results: Mapping[str, Type]
    functions: Mapping[str, Callable[..., Any]]
    adapters: Mapping[str, TypeAdapter[Any]]
    defaults: Mapping[str, Any]

    def input_model(self) -> type[BaseModel]:
        """What a run of it takes."""
        given: dict[str, Any] = {
            name: (self.fields[name].python(), self.defaults.get(name, ...)) for name in self.spec.input
        }
        return create_model("Input", __config__=ConfigDict(extra="forbid"), **given)

    def initial_state(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The fields that have a value before the first node."""
        return {**{name: value for name, value in self.defaults.items() if name in self.spec.state}, **given}

    def tools(self) -> Iterator[tuple[Location, str]]:
        """The names of the tools that it uses, and where."""
        for name, node in self.spec.nodes.items():
            yield from _tools(node, ("nodes", name))

    def callers(self) -> Iterator[tuple[Location, NodeSpec, Mapping[str, Type]]]:
        """The nodes that call a tool or an agent, where they stand, and the fields that their arguments may look at."""
        for name, node in self.spec.nodes.items():
            if node.map is not None and node.map.do.kind in ("tool", "agent"):
                items = Expression(node.map.over).check(self.fields)
                yield ("nodes", name, "map", "do"), node.map.do, {**self.fields, node.map.item: items.item or ANY}
            elif node.kind in ("tool", "agent"):
                yield ("nodes", name), node, self.fields

    def agents(self) -> Iterator[tuple[Location, str]]:
        """The names of the agents that it starts, and where."""
        for name, node in self.spec.nodes.items():
            inner = node.map.do if node.map is not None else node
            if inner.agent is not None:
                yield ("nodes", name, *(("map", "do") if node.map is not None else ()), "agent"), inner.agent


def _tools(node: NodeSpec, location: Location) -> Iterator[tuple[Location, str]]:
    if node.tool is not None:
        yield (*location, "tool"), node.tool
    if node.model is not None:
        yield from (((*location, "model", "tools", place), name) for place, name in enumerate(node.model.tools))
    if node.map is not None:
        yield from _tools(node.map.do, (*location, "map", "do"))


def load_workflow(path: str | Path) -> Workflow:
    """Raises WorkflowError that names file, line and column of everything that is wrong."""
    source = read_source(Path(path))
    return _Checker(source, parse(source)).check()


class _Checker:
    """Looks at everything that the format alone cannot tell."""

    def __init__(self, source: Source, spec: WorkflowSpec) -> None:
        self._source = source
        self._spec = spec
        self._types = TypeReader(spec.types)
        self._problems: list[Problem] = []
        self._functions: dict[str, Callable[..., Any]] = {}

    def check(self) -> Workflow:
        spec = self._spec
        self._check_names()
        self._check_types()
        fields = {**self._read_fields("input", spec.input), **self._read_fields("state", spec.state)}
        plan, problems = make_plan(spec)
        self._problems += problems
        self._stop_at_problems()
        results = {name: self._check_node(("nodes", name), node, fields) for name, node in spec.nodes.items()}
        self._check_edges(fields)
        self._check_outputs(fields)
        self._check_order(plan)
        self._stop_at_problems()
        adapters = {name: TypeAdapter(type.python()) for name, type in fields.items()}
        defaults = {
            name: to_jsonable_python(adapters[name].validate_python(default_of(field)))
            for name, field in {**spec.input, **spec.state}.items()
            if has_default(field)
        }
        return Workflow(spec, self._source, plan, fields, results, self._functions, adapters, defaults)

    def _stop_at_problems(self) -> None:
        if self._problems:
            raise self._source.error(self._problems)

    def _add(self, message: str, *location: str | int, is_key: bool = False) -> None:
        self._problems.append(Problem(message, location, is_key))

    # --- fields ----------------------------------------------------------------------------

    def _check_names(self) -> None:
        spec = self._spec
        for section, names in (("input", spec.input), ("state", spec.state), ("nodes", spec.nodes)):
            for name in names:
                if not name.isidentifier():
                    self._add(f"{name!r} is no name; use letters, digits and _", section, name, is_key=True)
        for name in {START, END} & set(spec.nodes):
            self._add(f"{name} stands for one end of the graph; give the node another name", "nodes", name, is_key=True)
        for name in set(spec.input) & set(spec.state):
            self._add(f"field {name!r} stands in input and in state; one of them is enough", "state", name, is_key=True)
        for name in set(spec.memory.fields) - set(spec.state):
            self._add(f"memory keeps {name!r}, which is no field{suggestion(name, spec.state)}", "memory", "fields")

    def _check_types(self) -> None:
        """A named type with a mistake is told where it is written, and not wherever it is used."""
        for name, fields in self._spec.types.items():
            for field, spec in fields.items():
                self._read_type(("types", name, field), spec)
        self._stop_at_problems()

    def _read_fields(self, section: str, specs: Mapping[str, FieldSpec]) -> dict[str, Type]:
        return {name: self._read_type((section, name), spec) for name, spec in specs.items()}

    def _read_type(self, location: Location, spec: FieldSpec) -> Type:
        try:
            type = self._types.read(spec)
        except TypeProblem as error:
            self._add(str(error), *location)
            return ANY
        if has_default(spec) and not _fits(type, default_of(spec)):
            self._add(f"the default {default_of(spec)!r} is no {type}", *location, "default")
        return type

    # --- nodes -----------------------------------------------------------------------------

    def _check_node(self, location: Location, node: NodeSpec, scope: Mapping[str, Type]) -> Type:
        """The type of the node's result."""
        result = self._result(location, node, scope)
        for argument, value in node.arguments.items():
            self._try(lambda value=value: check_argument(value, scope), *location, "arguments", argument)  # type: ignore[misc]
        self._check_writes(location, node, result, scope)
        return result

    def _check_approve(self, location: Location, spec: ApproveNode, scope: Mapping[str, Type]) -> None:
        for part in ("title", "recommendation", "reasoning"):
            text = getattr(spec, part)
            self._try(lambda text=text: Template(text).check(scope), *location, "approve", part)  # type: ignore[misc]
        if isinstance(spec.amount_usd, str):
            amount = spec.amount_usd
            type = self._try(lambda: Expression(amount).check(scope), *location, "approve", "amount_usd")
            if type is not None and type.kind not in NUMBERS:
                self._add(f"amount_usd is a number; {amount!r} is {type.one}", *location, "approve", "amount_usd")
        for name, value in (spec.arguments or {}).items():
            self._try(
                lambda value=value: check_argument(value, scope),  # type: ignore[misc]
                *location,
                "approve",
                "arguments",
                name,
            )

    def _result(self, location: Location, node: NodeSpec, scope: Mapping[str, Type]) -> Type:
        match node.kind:
            case "model":
                return self._check_model(location, node, scope)
            case "approve":
                assert node.approve is not None
                self._check_approve(location, node.approve, scope)
                return DECISION
            case "map":
                return self._check_map(location, node, scope)
            case "python":
                self._load_function(location, node)
                return ANY
            case "sleep" if node.writes is not None:
                self._add("a sleep has no result to write", *location, "writes")
                return ANY
            case _:
                return ANY

    def _check_model(self, location: Location, node: NodeSpec, scope: Mapping[str, Type]) -> Type:
        assert node.model is not None
        for part in ("prompt", "system"):
            text = getattr(node.model, part)
            if text is not None:
                self._try(lambda text=text: Template(text).check(scope), *location, "model", part)  # type: ignore[misc]
        if node.model.output is not None:
            return self._read_type((*location, "model", "output"), node.model.output)
        written = {name: scope.get(name, ANY) for name in node.written}
        if not written:
            return TEXT
        return Type("object", fields=written) if isinstance(node.writes, list) else next(iter(written.values()))

    def _check_map(self, location: Location, node: NodeSpec, scope: Mapping[str, Type]) -> Type:
        spec = node.map
        assert spec is not None
        items = self._try(lambda: Expression(spec.over).check(scope), *location, "map", "over") or ANY
        if items.kind not in ("list", "any"):
            self._add(f"map goes over a list; {spec.over!r} is {items.one}", *location, "map", "over")
        if spec.do.kind in ("map", "sleep", "wait", "approve"):
            self._add(f"a map cannot do a {spec.do.kind} node", *location, "map", "do")
        if spec.do.writes is not None:
            self._add(
                "what is done for each item writes nothing; the map writes the list", *location, "map", "do", "writes"
            )
        inner = self._check_node((*location, "map", "do"), spec.do, {**scope, spec.item: items.item or ANY})
        return Type("list", inner)

    def _load_function(self, location: Location, node: NodeSpec) -> None:
        assert node.python is not None
        module_name, _, attribute = node.python.partition(":")
        try:
            function = getattr(importlib.import_module(module_name), attribute)
        except Exception as error:  # noqa: BLE001 - whatever the user's module raises is told as theirs
            self._add(f"{node.python} cannot be loaded: {type(error).__name__}: {error}", *location, "python")
            return
        self._functions[node.python] = function
        try:
            inspect.signature(function).bind(**node.arguments)
        except TypeError as error:
            self._add(f"{node.python} cannot be called so: {error}", *location, "python")

    def _check_writes(self, location: Location, node: NodeSpec, result: Type, scope: Mapping[str, Type]) -> None:
        for name in node.written:
            if name not in self._spec.state:
                what = "an input, which nobody writes" if name in self._spec.input else "no field of state"
                self._add(
                    f"it writes {name!r}, which is {what}{suggestion(name, self._spec.state)}", *location, "writes"
                )
                continue
            written = result.get(name) if isinstance(node.writes, list) else result
            if written is None:
                self._add(f"its result, {result.one}, has no field {name!r} to write", *location, "writes")
            elif not scope[name].takes(written):
                self._add(f"it writes {written.one} into {name!r}, which is {scope[name].one}", *location, "writes")

    # --- edges and outputs -----------------------------------------------------------------

    def _check_edges(self, scope: Mapping[str, Type]) -> None:
        for number, edge in enumerate(self._spec.edges):
            for place, route in enumerate(edge.routes or ()):
                self._condition(route.when, scope, "edges", number, "routes", place, "when")
            if edge.loop is not None:
                self._condition(edge.loop.until, scope, "edges", number, "loop", "until")

    def _condition(self, text: str, scope: Mapping[str, Type], *location: str | int) -> None:
        type = self._try(lambda: Expression(text).check(scope), *location)
        if type is not None and type.kind not in ("bool", "any"):
            self._add(f"a condition is true or false; {text!r} is {type.one}", *location)

    def _check_outputs(self, scope: Mapping[str, Type]) -> None:
        output = self._spec.output
        for name in [output] if isinstance(output, str) else output or ():
            if name not in scope:
                self._add(f"the output {name!r} is no field{suggestion(name, scope)}", "output")

    def _check_order(self, plan: Plan) -> None:
        """No node looks at a field that may have no value yet, and no two branches write the same one."""
        if self._problems:
            return
        spec = self._spec
        given = frozenset(
            [*spec.input, *spec.memory.fields, *(name for name, each in spec.state.items() if has_default(each))]
        )
        writes = {name: frozenset(node.written) for name, node in spec.nodes.items()}
        before = written_before(plan, writes, given)
        for name, node in spec.nodes.items():
            self._check_set(f"node {name!r}", _looked_at(node) - before[name], "nodes", name, is_key=True)
        for source, way in plan.ways.items():
            known = before[source] | writes.get(source, frozenset())
            for condition, location in way.conditions():
                what = f"the condition {condition!r}, after {source!r},"
                self._check_set(what, Expression(condition).names() - known, "edges", way.edge, *location)
        for way in plan.ways.values():
            if way.is_fork:
                self._check_branches(
                    way.edge,
                    [frozenset().union(*(writes.get(n, frozenset()) for n in b)) for b in branches_of(plan, way)],
                )

    def _check_set(self, what: str, fields: Collection[str], *location: str | int, is_key: bool = False) -> None:
        for field in sorted(set(fields) & set(self._spec.state)):
            text = f"{what} looks at {field!r}, which may have no value yet; give it a default or write it"
            self._add(text, *location, is_key=is_key)

    def _check_branches(self, edge: int, written: list[frozenset[str]]) -> None:
        seen = frozenset[str]()
        for each in written:
            if each & seen:
                self._add(f"two branches write {min(each & seen)!r}; give each a field of its own", "edges", edge)
            seen |= each

    def _try(self, check: Callable[[], Any], *location: str | int) -> Any:
        try:
            return check()
        except ExpressionProblem as error:
            self._add(str(error), *location)
            return None


def _fits(type: Type, value: Any) -> bool:
    try:
        TypeAdapter(type.python()).validate_python(value)
    except ValidationError:
        return False
    return True


def _looked_at(node: NodeSpec) -> set[str]:
    """Every name that a node's texts look at."""
    names = set[str]()
    for text in _texts(node.model_dump(exclude_none=True)):
        names |= _names_in(text)
    if node.map is not None:
        names |= Expression(node.map.over).names()
    if node.approve is not None and isinstance(node.approve.amount_usd, str):
        names |= Expression(node.approve.amount_usd).names()
    return names


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for each in value.values():
                yield from _texts(each)
        case list():
            for each in value:
                yield from _texts(each)


def _names_in(text: str) -> set[str]:
    from jinja2 import Environment, TemplateSyntaxError, meta

    if "{" not in text:
        return set()
    try:
        return meta.find_undeclared_variables(Environment(autoescape=True).parse(text))
    except TemplateSyntaxError:
        return set()
