"""The graph of a workflow: where each node leads, where forks join, and whether every node can be reached and left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from pilothouse.agents.workflow.format import END, START, EdgeSpec, LoopSpec, RouteSpec, WorkflowSpec
from pilothouse.agents.workflow.source import Problem, suggestion


@dataclass(frozen=True, slots=True)
class Way:
    """Where a node leads: to all of `targets` at once, which meet again at `join`; by `routes`; or around a `loop`."""

    edge: int
    targets: tuple[str, ...] = ()
    routes: tuple[RouteSpec, ...] = ()
    default: str | None = None
    loop: LoopSpec | None = None
    join: str = END

    @property
    def is_fork(self) -> bool:
        return len(self.targets) > 1

    def conditions(self) -> Iterator[tuple[str, tuple[str | int, ...]]]:
        """What it asks of the state, and where in its edge."""
        for place, route in enumerate(self.routes):
            yield route.when, ("routes", place, "when")
        if self.loop is not None:
            yield self.loop.until, ("loop", "until")

    def ahead(self) -> tuple[str, ...]:
        """The nodes that it leads on to, without the way back of a loop."""
        if self.loop is not None:
            return (self.loop.to,)
        if self.routes:
            assert self.default is not None
            return tuple(dict.fromkeys([*(route.to for route in self.routes), self.default]))
        return self.targets


@dataclass(slots=True)
class Plan:
    """The ways out of every node, and of START."""

    ways: dict[str, Way] = field(default_factory=dict)

    def reachable(self, start: str, *, without: str | None = None) -> set[str]:
        """The nodes on any way from `start`, itself included, without passing `without`."""
        found, waiting = set[str](), [start]
        while waiting:
            node = waiting.pop()
            if node in found or node == without:
                continue
            found.add(node)
            waiting.extend(self.ways[node].ahead() if node in self.ways else ())
        return found

    def before(self, node: str) -> list[str]:
        """The nodes that lead on to it."""
        return [source for source, way in self.ways.items() if node in way.ahead()]


def make_plan(spec: WorkflowSpec) -> tuple[Plan, list[Problem]]:
    """The plan and what is wrong with the graph; a plan with problems is not to be run."""
    plan, problems = Plan(), list[Problem]()
    for number, edge in enumerate(spec.edges):
        problems += _unknown_names(spec, number, edge)
        for source in edge.sources:
            problems += _add_way(plan, source, number, edge)
    if not problems:
        problems += _dead_ends(spec, plan)
    if not problems:
        problems += _circles(plan)
    if not problems:
        problems += _join_forks(plan)
    return plan, problems


def _add_way(plan: Plan, source: str, number: int, edge: EdgeSpec) -> Iterator[Problem]:
    known = plan.ways.get(source)
    targets = () if edge.to is None else (edge.to,) if isinstance(edge.to, str) else tuple(edge.to)
    if known is None:
        plan.ways[source] = Way(number, targets, tuple(edge.routes or ()), edge.default, edge.loop)
    elif known.targets and targets:
        plan.ways[source] = Way(known.edge, known.targets + targets)
    else:
        yield Problem(
            f"node {source!r} has another edge with routes or a loop; put all its ways into one", ("edges", number)
        )


def _unknown_names(spec: WorkflowSpec, number: int, edge: EdgeSpec) -> Iterator[Problem]:
    sources, targets = {START, *spec.nodes}, {END, *spec.nodes}
    for source in edge.sources:
        if source not in sources:
            yield Problem(f"there is no node {source!r}{suggestion(source, sources)}", ("edges", number, "from"))
    for target, location in _targets(edge):
        if target not in targets:
            yield Problem(f"there is no node {target!r}{suggestion(target, targets)}", ("edges", number, *location))


def _targets(edge: EdgeSpec) -> Iterator[tuple[str, tuple[str | int, ...]]]:
    if edge.to is not None:
        for target in (edge.to,) if isinstance(edge.to, str) else edge.to:
            yield target, ("to",)
    for place, route in enumerate(edge.routes or ()):
        yield route.to, ("routes", place, "to")
    if edge.default is not None:
        yield edge.default, ("default",)
    if edge.loop is not None:
        yield edge.loop.to, ("loop", "to")
        if edge.loop.back_to is not None:
            yield edge.loop.back_to, ("loop", "back_to")


def _dead_ends(spec: WorkflowSpec, plan: Plan) -> Iterator[Problem]:
    if START not in plan.ways:
        yield Problem("no edge leads from START; add {from: START, to: …}", ("edges",))
        return
    reached = plan.reachable(START)
    for name in spec.nodes:
        if name not in reached:
            yield Problem(f"node {name!r} cannot be reached from START", ("nodes", name), is_key=True)
        elif name not in plan.ways:
            yield Problem(
                f"node {name!r} leads nowhere; add an edge from it, to END if it is the last",
                ("nodes", name),
                is_key=True,
            )


def _circles(plan: Plan) -> Iterator[Problem]:
    """Only a loop may lead back, for only a loop ends by itself."""
    for source, way in plan.ways.items():
        for target in way.ahead():
            if source in plan.reachable(target):
                text = f"the way from {source!r} to {target!r} leads back; use a loop, with a condition and a max"
                yield Problem(text, ("edges", way.edge))
        if way.loop is not None:
            back_to = way.loop.back_to or source
            if source not in plan.reachable(back_to):
                text = f"the loop of {source!r} goes back to {back_to!r}, from which it does not come"
                yield Problem(text, ("edges", way.edge, "loop", "back_to"))


def _join_forks(plan: Plan) -> Iterator[Problem]:
    for source, way in plan.ways.items():
        if not way.is_fork:
            continue
        join = _join(plan, way.targets)
        plan.ways[source] = Way(way.edge, way.targets, join=join)
        shared = _shared(plan, way.targets, join)
        if shared:
            text = f"the branches from {source!r} meet at {join!r}, but go through {shared!r} before, each by itself"
            yield Problem(text, ("edges", way.edge))


def _join(plan: Plan, branches: Iterable[str]) -> str:
    """The nearest node that every way of every branch comes to."""
    common = [node for node in _in_order(plan, branches) if all(_must_pass(plan, branch, node) for branch in branches)]
    return common[0] if common else END


def _in_order(plan: Plan, branches: Iterable[str]) -> list[str]:
    """The nodes behind the branches, each after those that lead to it."""
    found = set().union(*(plan.reachable(branch) for branch in branches))
    return sorted(found, key=lambda node: -len(plan.reachable(node)))


def _must_pass(plan: Plan, start: str, node: str) -> bool:
    return node in plan.reachable(start) and END not in plan.reachable(start, without=node)


def _shared(plan: Plan, branches: Iterable[str], join: str) -> str | None:
    seen = set[str]()
    for branch in branches:
        own = plan.reachable(branch, without=join)
        if own & seen:
            return min(own & seen)
        seen |= own
    return None


def branches_of(plan: Plan, fork: Way) -> list[set[str]]:
    """The nodes of each branch of a fork."""
    return [plan.reachable(target, without=fork.join) for target in fork.targets]


def written_before(
    plan: Plan, writes: Mapping[str, frozenset[str]], given: frozenset[str]
) -> dict[str, frozenset[str]]:
    """The fields that have a value whenever a node is come to, on whichever way.

    Where the branches of a fork meet, all of them have been gone through; where other ways meet, one of them has.
    """
    everything = given.union(*writes.values())
    before = dict.fromkeys([*plan.ways, END], everything)
    before[START] = given
    is_settled = False
    while not is_settled:
        is_settled = True
        for node in before:
            found = given if node == START else _at(plan, node, before, writes, everything)
            if found != before[node]:
                before[node], is_settled = found, False
    return before


def _at(
    plan: Plan,
    node: str,
    before: Mapping[str, frozenset[str]],
    writes: Mapping[str, frozenset[str]],
    everything: frozenset[str],
) -> frozenset[str]:
    sources = plan.before(node)
    after = {source: before[source] | writes.get(source, frozenset()) for source in sources}
    met, left = everything, set(sources)
    for way in plan.ways.values():
        if way.is_fork and way.join == node:
            sides = [branch & left for branch in branches_of(plan, way)]
            met &= frozenset().union(*(_all(after, side, everything) for side in sides if side))
            left -= set().union(*sides)
    return met & _all(after, left, everything)


def _all(after: Mapping[str, frozenset[str]], sources: Iterable[str], everything: frozenset[str]) -> frozenset[str]:
    found = everything
    for source in sources:
        found &= after[source]
    return found
