"""Reads the YAML of the project "configurable-agents" and writes it as a workflow; what has no counterpart is said."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pilothouse.agents.workflow.format import END
from pilothouse.agents.workflow.source import Location, Problem, WorkflowError, plain, read_source

FIELD = re.compile(r"\{(?:state\.)?(?P<path>[A-Za-z_][\w.]*)\}")
LOGIC_FIELD = re.compile(r"\{?\bstate\.(?P<path>[A-Za-z_][\w.]*)\}?")
NAME = re.compile(r"\W+")

FLOW_KEYS = frozenset({"name", "description", "version"})
NODE_KEYS = frozenset({"id", "description", "prompt", "outputs", "output_schema", "tools", "inputs", "llm"})
NODE_KINDS: dict[str, type] = {"inputs": dict, "llm": dict, "output_schema": dict, "outputs": list, "tools": list}
EDGE_KINDS: dict[str, type] = {"routes": list, "loop": dict}
CONFIG_NOTES = {
    "observability": "metrics, logs and traces are settings of Pilothouse, not of a workflow",
    "storage": "where runs are kept is the setting database_url",
    "sandbox": "isolation is an option of an agent",
    "workflow_sandbox": "isolation is an option of an agent",
}


@dataclass(slots=True)
class Imported:
    """The workflow as plain data, ready for YAML, and what could not be carried over."""

    workflow: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def import_workflow(path: str | Path) -> Imported:
    """Raises WorkflowError for a file that is none of that project."""
    source = read_source(Path(path))
    content = plain(source.tree)
    missing = [key for key in ("flow", "state", "nodes", "edges") if key not in content]
    if missing:
        raise WorkflowError(
            f"{path}: it has no {missing[0]!r}; a file of configurable-agents has flow, state, nodes, edges"
        )
    problems = list(_misshapen(content))
    if problems:
        raise source.error(problems)
    return _Import(content).run()


def _misshapen(content: Mapping[str, Any]) -> Iterator[Problem]:
    """What stands where the other project has something of another kind."""
    yield from _wrong_kinds(content, {"flow": dict, "state": dict, "nodes": list, "edges": list}, ())
    state, nodes, edges = content["state"], content["nodes"], content["edges"]
    for name, spec in (state.get("fields", {}) if isinstance(state, dict) else {}).items():
        if not isinstance(spec, dict):
            yield Problem(f"state.fields.{name} must be a mapping", ("state", "fields", name))
    for place, node in enumerate(nodes if isinstance(nodes, list) else ()):
        yield from _misshapen_part(("nodes", place), node, "id", NODE_KINDS)
    for place, edge in enumerate(edges if isinstance(edges, list) else ()):
        yield from _misshapen_part(("edges", place), edge, "from", EDGE_KINDS)
        routes = edge.get("routes") if isinstance(edge, dict) else None
        for number, route in enumerate(routes if isinstance(routes, list) else ()):
            yield from _misshapen_part(("edges", place, "routes", number), route, "to", {"condition": dict})


def _misshapen_part(location: Location, part: Any, name: str, kinds: Mapping[str, type]) -> Iterator[Problem]:
    if not isinstance(part, dict) or name not in part:
        yield Problem(f"{'.'.join(map(str, location))} must be a mapping with {name!r}", location)
        return
    yield from _wrong_kinds(part, kinds, location)


def _wrong_kinds(part: Mapping[str, Any], kinds: Mapping[str, type], location: Location) -> Iterator[Problem]:
    for key, kind in kinds.items():
        if part.get(key) is not None and not isinstance(part[key], kind):
            yield Problem(f"{key} must be a {'mapping' if kind is dict else 'list'}", (*location, key))


class _Import:
    def __init__(self, content: Mapping[str, Any]) -> None:
        self._content = content
        self._done = Imported()

    def run(self) -> Imported:
        flow = self._content["flow"]
        for key in sorted(set(flow) - FLOW_KEYS):
            self._note(f"flow.{key} was left out")
        required, others = self._fields()
        made = self._done.workflow
        made["name"] = NAME.sub("_", str(flow.get("name", "workflow")))
        if flow.get("description"):
            made["description"] = flow["description"]
        made["version"] = flow.get("version", 1)
        made["input"], made["state"] = required, others
        made["nodes"] = {self._name(node["id"]): self._node(node) for node in self._content["nodes"]}
        self._move_written_inputs(made)
        made["edges"] = [self._edge(edge) for edge in self._content["edges"]]
        self._config(self._content.get("config") or {}, made)
        for key in sorted(set(self._content) - {"schema_version", "flow", "state", "nodes", "edges", "config"}):
            self._note(f"{key} was left out")
        return self._done

    def _note(self, text: str) -> None:
        self._done.notes.append(text)

    # --- state -----------------------------------------------------------------------------

    def _fields(self) -> tuple[dict[str, Any], dict[str, Any]]:
        required, others = dict[str, Any](), dict[str, Any]()
        for name, spec in self._content["state"].get("fields", {}).items():
            (required if spec.get("required") else others)[name] = self._field(spec)
        return required, others

    def _field(self, spec: Mapping[str, Any]) -> Any:
        made: dict[str, Any] = {"type": _type(str(spec.get("type", "any")))}
        if "schema" in spec:
            made["fields"] = {name: self._field(inner) for name, inner in spec["schema"].items()}
        for key in ("description", "default"):
            if key in spec:
                made[key] = spec[key]
        return made["type"] if set(made) == {"type"} else made

    def _move_written_inputs(self, made: dict[str, Any]) -> None:
        """An input that a node writes becomes a field of state with another name, which nobody could guess: say so."""
        for name, node in made["nodes"].items():
            for written in node.get("writes", ()):
                if written in made["input"]:
                    self._note(f"node {name} writes the input {written!r}; give it a field of its own")

    # --- nodes -----------------------------------------------------------------------------

    def _name(self, text: str) -> str:
        return NAME.sub("_", text)

    def _node(self, node: Mapping[str, Any]) -> dict[str, Any]:
        name = node["id"]
        for key in sorted(set(node) - NODE_KEYS):
            self._note(f"{key} of node {name} was left out")
        if not node.get("prompt"):
            self._note(f"node {name} has no prompt; write what it does as a python or tool node")
        inputs = {key: _path(str(value)) for key, value in (node.get("inputs") or {}).items()}
        model: dict[str, Any] = {"prompt": _template(str(node.get("prompt", "")), inputs)}
        if node.get("tools"):
            model["tools"] = [str(tool.get("name") if isinstance(tool, dict) else tool) for tool in node["tools"]]
            self._note(f"the tools of node {name} must be registered with @app.tool: {', '.join(model['tools'])}")
        self._model_settings(name, node.get("llm") or {}, model)
        made: dict[str, Any] = {"model": model, "writes": list(node.get("outputs") or ())}
        schema = node.get("output_schema") or {}
        if schema.get("type") not in (None, "object") and len(made["writes"]) == 1:
            made["writes"] = made["writes"][0]
        if node.get("description"):
            made = {"description": node["description"], **made}
        return made

    def _model_settings(self, name: str, llm: Mapping[str, Any], model: dict[str, Any]) -> None:
        for key in ("temperature", "max_tokens"):
            if key in llm:
                model[key] = llm[key]
        if llm.get("provider") or llm.get("model"):
            model["route"] = f"{llm.get('provider', 'google')}:{llm.get('model', 'gemini-2.5-flash')}"
        for key in sorted(set(llm) - {"temperature", "max_tokens", "provider", "model"}):
            self._note(f"llm.{key} of node {name} was left out")

    # --- edges -----------------------------------------------------------------------------

    def _edge(self, edge: Mapping[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = {"from": self._name(str(edge["from"]))}
        if "routes" in edge:
            made |= self._routes(made["from"], edge["routes"])
        elif "loop" in edge:
            loop = edge["loop"]
            until = _path(str(loop.get("condition_field", "false")))
            made["loop"] = {
                "until": until,
                "max": loop.get("max_iterations", 10),
                "to": self._name(loop.get("exit_to", END)),
            }
        elif "parallel" in edge:
            self._note(f"the parallel edge from {made['from']} was left out: write it as a map node")
            made["to"] = END
        else:
            targets = edge.get("to", END)
            made["to"] = [self._name(each) for each in targets] if isinstance(targets, list) else self._name(targets)
        return made

    def _routes(self, source: str, routes: list[Mapping[str, Any]]) -> dict[str, Any]:
        made: list[dict[str, str]] = []
        default = None
        for route in routes:
            logic = str((route.get("condition") or {}).get("logic", "default"))
            if logic == "default":
                default = self._name(route["to"])
            else:
                made.append({"when": LOGIC_FIELD.sub(r"\g<path>", logic), "to": self._name(route["to"])})
        if default is None:
            self._note(f"the routes from {source} have no default; they lead to END where no condition holds")
        return {"routes": made, "default": default or END}

    # --- config ----------------------------------------------------------------------------

    def _config(self, config: Mapping[str, Any], made: dict[str, Any]) -> None:
        llm = config.get("llm") or {}
        if llm.get("model"):
            made["model"] = f"{llm.get('provider', 'google')}:{llm['model']}"
        for key in ("temperature", "max_tokens"):
            if key in llm:
                for node in made["nodes"].values():
                    node["model"].setdefault(key, llm[key])
        self._execution(config.get("execution") or {}, made)
        memory = config.get("memory") or {}
        if memory.get("enabled"):
            self._note("memory: name the fields that outlive a run under memory.fields, with scope: agent")
        for key in sorted(set(config) - {"llm", "execution", "memory"}):
            self._note(f"config.{key} was left out: {CONFIG_NOTES.get(key, 'it has no counterpart')}")

    def _execution(self, execution: Mapping[str, Any], made: dict[str, Any]) -> None:
        limits: dict[str, Any] = {}
        timeout = execution.get("timeout", execution.get("timeout_seconds"))
        if timeout is not None:
            limits["timeout_seconds"] = timeout
        if "max_retries" in execution:
            limits["max_attempts"] = execution["max_retries"] + 1
        if limits:
            made["limits"] = limits


def _type(text: str) -> str:
    plain_names = {"list": "list[any]", "dict": "dict[str, any]"}
    return plain_names.get(text, text)


def _path(text: str) -> str:
    return text.strip("{} ").removeprefix("state.")


def _template(text: str, inputs: Mapping[str, str]) -> str:
    return FIELD.sub(lambda found: "{{ " + inputs.get(found["path"], found["path"]) + " }}", text)


def dump(workflow: Mapping[str, Any]) -> str:
    """The workflow as YAML, long texts as blocks."""
    from io import StringIO

    from ruamel.yaml import YAML
    from ruamel.yaml.scalarstring import LiteralScalarString

    def blocks(value: Any) -> Any:
        match value:
            case str() if "\n" in value:
                return LiteralScalarString(value)
            case dict():
                return {key: blocks(item) for key, item in value.items()}
            case list():
                return [blocks(item) for item in value]
            case _:
                return value

    out = StringIO()
    yaml = YAML()
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.dump(blocks(dict(workflow)), out)
    return out.getvalue()
