"""How a workflow looks: as a Mermaid diagram, and as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pilothouse.agents.workflow.definition import Workflow
from pilothouse.agents.workflow.format import END, START, NodeSpec

SHAPES = {
    "model": ('(["', '"])'),
    "tool": ('[/"', '"/]'),
    "python": ('["', '"]'),
    "approve": ('{{"', '"}}'),
    "agent": ('[["', '"]]'),
    "sleep": ('(("', '"))'),
    "wait": ('(("', '"))'),
    "map": ('[\\"', '"\\]'),
}
LABEL_SHOWN = 60
RESERVED = frozenset({"call", "class", "classDef", "click", "default", "end", "graph", "href", "style", "subgraph"})
"""Words of Mermaid's own, which cannot be a node's id."""


class Arrow(NamedTuple):
    """A way from one node to another. `label` says when; `is_back` where it goes around a loop again."""

    source: str
    target: str
    label: str = ""
    is_back: bool = False


def arrows(workflow: Workflow) -> Iterator[Arrow]:
    """Every way, in the order of the nodes."""
    ways = workflow.plan.ways
    for source in [START, *workflow.spec.nodes]:
        way = ways[source]
        for target in way.targets:
            yield Arrow(source, target)
        for route in way.routes:
            yield Arrow(source, route.to, route.when)
        if way.default is not None:
            yield Arrow(source, way.default, "else")
        if way.loop is not None:
            yield Arrow(source, way.loop.back_to or source, f"until {way.loop.until}, at most {way.loop.max}x", True)
            yield Arrow(source, way.loop.to, "then")


def title(name: str, node: NodeSpec) -> str:
    """A node's name and what it does."""
    match node.kind:
        case "model":
            assert node.model is not None
            does = f"model {node.model.route or ''}".strip()
        case "tool" | "python" | "agent":
            does = f"{node.kind} {getattr(node, node.kind)}"
        case "wait":
            assert node.wait is not None
            does = f"wait for {node.wait.signal}"
        case "map":
            assert node.map is not None
            does = f"each {node.map.item} of {node.map.over}: {title('', node.map.do)}"
        case kind:
            does = kind
    return f"{name}: {does}" if name else does


def mermaid(workflow: Workflow) -> str:
    """The graph in Mermaid's language, for Markdown and wikis."""
    lines = ["flowchart TD", f"    {START}([START])"]
    for name, node in workflow.spec.nodes.items():
        before, after = SHAPES[node.kind]
        lines.append(f"    {_id(name)}{before}{_escaped(title(name, node))}{after}")
    lines.append(f"    {END}([END])")
    for arrow in arrows(workflow):
        line = "-.->" if arrow.is_back else "-->"
        label = f'|"{_escaped(arrow.label)}"|' if arrow.label else ""
        lines.append(f"    {_id(arrow.source)} {line}{label} {_id(arrow.target)}")
    return "\n".join(lines) + "\n"


def _id(name: str) -> str:
    return f"{name}_" if name in RESERVED else name


def _escaped(text: str) -> str:
    short = text if len(text) <= LABEL_SHOWN else text[: LABEL_SHOWN - 1] + "…"
    return short.replace("&", "#amp;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")


def text(workflow: Workflow) -> Iterator[tuple[str, str]]:
    """Lines for a terminal, each with its kind: "node", "arrow" or "back"."""
    by_source: dict[str, list[Arrow]] = {}
    for arrow in arrows(workflow):
        by_source.setdefault(arrow.source, []).append(arrow)
    for source, ways in by_source.items():
        node = workflow.spec.nodes.get(source)
        yield "node", source if node is None else title(source, node)
        for place, way in enumerate(ways):
            branch = "└" if place == len(ways) - 1 else "├"
            when = f"  when {way.label}" if way.label and way.label not in ("else", "then") else ""
            when = f"  {way.label}" if way.label in ("else", "then") or way.is_back else when
            yield ("back" if way.is_back else "arrow"), f"  {branch}─{'↺' if way.is_back else '▶'} {way.target}{when}"
