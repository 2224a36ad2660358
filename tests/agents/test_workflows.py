"""Workflows: what they do, what their checks find, how they look, and what comes over from elsewhere."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from ruamel.yaml import YAML

from pilothouse import App
from pilothouse.agents.workflow import graph
from pilothouse.agents.workflow.definition import Workflow, load_workflow
from pilothouse.agents.workflow.importer import dump, import_workflow
from pilothouse.agents.workflow.json_schema import workflow_schema
from pilothouse.agents.workflow.source import WorkflowError
from pilothouse.testing import ScriptedModel
from tests.engine.conftest import Start, start

__all__ = ["start"]

FULL = """
name: triage
description: Sorts a message
types:
  Label: {kind: str, urgency: int, note: str?}
input:
  text: str
  sender: {type: str, default: nobody}
state:
  label: Label
  facts: str
  order: object
  draft: {type: str, default: ""}
  good: {type: bool, default: false}
  words: list[str]
  lengths: list[int]
  count: {type: int, default: 0}
output: [label, draft, lengths, count]
memory: {scope: agent, fields: [count]}
nodes:
  classify:
    model: {prompt: "Classify: {{ text }}", system: "You sort the messages of {{ sender }}"}
    writes: label
  search:
    tool: search
    arguments: {query: "{{ text }}"}
    writes: facts
  look:
    tool: lookup
    arguments: {order: "{{ label.urgency }}"}
    writes: order
  write:
    model: {prompt: "Draft for {{ label.kind }} with {{ facts }} {{ order.state }}: {{ draft }}"}
    writes: [draft, good]
  split:
    python: tests.agents.helpers:words_of
    arguments: {text: "{{ draft }}"}
    writes: words
  measure:
    map: {over: words, as: word, do: {python: "tests.agents.helpers:length_of", arguments: {word: "{{ word }}"}}}
    writes: lengths
  bump:
    python: tests.agents.helpers:add_one
    arguments: {number: "{{ count }}"}
    writes: count
  nap: {sleep: {minutes: 5}}
edges:
  - {from: START, to: classify}
  - {from: classify, to: [search, look]}
  - {from: [search, look], to: write}
  - from: write
    loop: {until: good, max: 3, to: split}
  - from: split
    routes:
      - {when: "len(words) > 2 and label.kind == 'refund'", to: measure}
    default: nap
  - {from: nap, to: measure}
  - {from: measure, to: bump}
  - {from: bump, to: END}
"""


def load(tmp_path: Path, text: str) -> Workflow:
    path = tmp_path / "workflow.yaml"
    path.write_text(text, encoding="utf-8")
    return load_workflow(path)


def make_app(tmp_path: Path, text: str) -> App:
    path = tmp_path / "workflow.yaml"
    path.write_text(text, encoding="utf-8")
    app = App("t")

    @app.tool(effect="read")
    def search(query: str) -> str:
        return f"found {query}"

    @app.tool(effect="read")
    def lookup(order: int) -> dict[str, Any]:
        return {"order": order, "state": "sent"}

    @app.agent
    async def auditor(ticket: int) -> str:
        return f"audited {ticket}"

    app.add_workflow(path)
    app.check()
    return app


# --- what they do ------------------------------------------------------------------------------


async def test_a_workflow_forks_joins_loops_maps_and_remembers(start: Start, tmp_path: Path) -> None:
    model = ScriptedModel(
        [
            {"when": {"contains": "Classify"}, "json": {"kind": "refund", "urgency": 3, "note": None}},
            {"when": {"contains": "Draft"}, "times": 1, "json": {"draft": "one", "good": False}},
            {"when": {"contains": "sent: one"}, "json": {"draft": "one two three", "good": True}},
            {"when": {"contains": "Draft"}, "json": {"draft": "one two three", "good": True}},
        ]
    )
    platform = await start(make_app(tmp_path, FULL), model=model)

    first = await platform.run("triage", {"text": "where is it"})
    second = await platform.run("triage", {"text": "where is it"})

    assert first == {
        "label": {"kind": "refund", "urgency": 3, "note": None},
        "draft": "one two three",
        "lengths": [3, 3, 5],
        "count": 1,
    }
    assert second["count"] == 2
    assert model.asked[0].system == "You sort the messages of nobody"


async def test_every_node_is_a_step_and_a_lost_worker_resumes(start: Start, tmp_path: Path) -> None:
    model = ScriptedModel(
        [
            {"when": {"contains": "Classify"}, "json": {"kind": "bug", "urgency": 3}},
            {"json": {"draft": "one two", "good": True}},
        ]
    )
    platform = await start(make_app(tmp_path, FULL), model=model)
    run_id = await platform.submit("triage", {"text": "x"})
    await platform.run_until_idle()
    assert (await platform.get(run_id))["state"] == "waiting"  # it naps

    await platform.advance(seconds=301)
    await platform.run_until_idle()

    found = await platform.timeline(run_id)
    assert found["run"]["state"] == "succeeded"
    keys = {step["key"] for step in found["steps"]}
    assert {"classify", "search", "look", "write", "split", "nap", "measure[0]", "measure[1]", "bump"} <= keys
    assert len(model.asked) == 2


WAITING = """
name: waiting
input: {amount: float}
state: {decision: object, paid: object, audit: str, note: {type: str, default: none}}
output: [audit, note]
nodes:
  ask: {approve: {title: "Refund {{ amount }}", recommendation: "yes", amount_usd: amount}, writes: decision}
  hold: {wait: {signal: paid}, writes: paid}
  check: {agent: auditor, arguments: {ticket: "{{ paid['ticket'] }}"}, writes: audit}
edges:
  - {from: START, to: ask}
  - from: ask
    routes: [{when: decision.approved, to: hold}]
    default: END
  - {from: hold, to: check}
  - {from: check, to: END}
"""


async def test_a_workflow_waits_for_people_signals_and_children(start: Start, tmp_path: Path) -> None:
    platform = await start(make_app(tmp_path, WAITING))
    run_id = await platform.submit("waiting", {"amount": 12.5})
    await platform.run_until_idle()
    (asked,) = await platform.approvals(run_id)
    assert (asked["title"], asked["recommendation"], asked["cost_usd"]) == ("Refund 12.5", "yes", 12.5)

    await platform.decide(asked["id"], "approve", note="fine")
    await platform.run_until_idle()
    await platform.signal(run_id, "paid", {"ticket": 7})
    await platform.run_until_idle()

    assert (await platform.get(run_id))["output"] == {"audit": "audited 7", "note": "none"}


async def test_a_decision_against_it_takes_the_other_way(start: Start, tmp_path: Path) -> None:
    platform = await start(make_app(tmp_path, WAITING))
    run_id = await platform.submit("waiting", {"amount": 12.5})
    await platform.run_until_idle()
    (asked,) = await platform.approvals(run_id)
    await platform.decide(asked["id"], "reject", note="too much")
    await platform.run_until_idle()

    assert (await platform.get(run_id))["output"] == {"audit": None, "note": "none"}


async def test_an_input_that_does_not_fit_is_refused_at_submit(start: Start, tmp_path: Path) -> None:
    from pilothouse.errors import InvalidInput

    platform = await start(make_app(tmp_path, WAITING))

    with pytest.raises(InvalidInput, match="amount"):
        await platform.submit("waiting", {"amount": "a lot"})


async def test_a_result_of_another_type_names_node_and_field(start: Start, tmp_path: Path) -> None:
    text = (
        "name: wrong\nstate: {n: int}\nnodes:\n  get: {tool: search, arguments: {query: x}, writes: n}\n"
        "edges: [{from: START, to: get}, {from: get, to: END}]\n"
    )
    platform = await start(make_app(tmp_path, text))
    run_id = await platform.submit("wrong")
    await platform.run_until_idle()

    message = (await platform.get(run_id))["error"]["message"]
    assert "node 'get' wrote into 'n', which is an int" in message


async def test_a_loop_is_bounded_even_if_its_condition_never_holds(start: Start, tmp_path: Path) -> None:
    text = """
name: loop
state: {count: {type: int, default: 0}}
output: count
nodes:
  bump: {python: "tests.agents.helpers:add_one", arguments: {number: "{{ count }}"}, writes: count}
edges:
  - {from: START, to: bump}
  - {from: bump, loop: {until: count > 100, max: 5, to: END}}
"""
    platform = await start(make_app(tmp_path, text))

    assert await platform.run("loop") == 5


async def test_a_node_is_tried_as_its_retry_says(start: Start, tmp_path: Path) -> None:
    text = """
name: flaky
limits: {max_attempts: 1}
nodes:
  fail: {python: "tests.agents.helpers:fail", arguments: {times: 3}, retry: {attempts: 3, first_seconds: 0}}
edges: [{from: START, to: fail}, {from: fail, to: END}]
"""
    platform = await start(make_app(tmp_path, text))
    run_id = await platform.submit("flaky")
    await platform.run_until_idle()

    steps = (await platform.timeline(run_id))["steps"]
    assert [(step["key"], step["state"], step["tries"]) for step in steps] == [("fail", "retryable", 3)]


async def test_a_branch_that_fails_lets_the_other_end_what_it_has_begun(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "workflow.yaml"
    path.write_text(
        """
name: fork
limits: {max_attempts: 1}
nodes:
  fail: {python: "tests.agents.helpers:fail", arguments: {times: 1}}
  pay: {tool: pay}
  tell: {tool: pay}
edges: [{from: START, to: [fail, pay]}, {from: pay, to: tell}, {from: [fail, tell], to: END}]
""",
        encoding="utf-8",
    )
    app, may_go_on, paid = App("t"), asyncio.Event(), list[int]()

    @app.tool
    async def pay() -> str:
        await may_go_on.wait()
        paid.append(1)
        return "paid"

    app.add_workflow(path)
    platform = await start(app)
    run_id = await platform.submit("fork")
    async with asyncio.timeout(30):
        while "fail" not in {step["key"] for step in (await platform.timeline(run_id))["steps"]}:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    may_go_on.set()
    await platform.run_until_idle()

    found = await platform.timeline(run_id)
    assert (found["run"]["state"], paid) == ("failed", [1])
    assert [effect["state"] for effect in found["effects"]] == ["succeeded"]


async def test_a_default_is_kept_in_the_type_of_its_field(start: Start, tmp_path: Path) -> None:
    text = """
name: defaults
input: {urgent: {type: bool, default: no}}
state: {done: {type: bool, default: "no"}, count: {type: int, default: "3"}}
nodes: {nap: {sleep: {seconds: 0}}}
edges: [{from: START, to: nap}, {from: nap, to: END}]
"""
    platform = await start(make_app(tmp_path, text))

    assert await platform.run("defaults") == {"done": False, "count": 3}


# --- what the checks find ----------------------------------------------------------------------

CHANGES = [
    ('prompt: "Classify', 'promt: "Classify', r":22:13: unknown key 'promt'; did you mean 'prompt'\?"),
    ("to: write}", "to: writ}", r":\d+:\d+: there is no node 'writ'; did you mean 'write'\?"),
    ("    default: nap\n", "", r"routes need a default"),
    ("len(words) > 2", "len(wrods) > 2", r"looks at 'wrods', which is no field; did you mean 'words'\?"),
    ("label.kind == 'refund'", "label.kind == 3", r"compares a str with an int"),
    ("label.kind == 'refund'", "label.kin == 'refund'", r"a Label has no field 'kin'; did you mean 'kind'\?"),
    ("len(words) > 2 and", "words > 2 and", r"a list\[str\] has no order"),
    ("until: good", "until: draft", r"a condition is true or false; 'draft' is a str"),
    ("until: good", "until: __import__('os')", r"is not allowed in a condition"),
    ("label.kind }} with", "label.kid }} with", r"the template looks at 'kid' of a Label, which it has not"),
    ('"Classify: {{ text }}"', '"Classify: {{ txt }}"', r"'txt', which is no field; did you mean 'text'\?"),
    ('"Classify: {{ text }}"', '"Classify: {{ text "', r"the template is wrong in its line 1"),
    ("  - {from: bump, to: END}\n", "", r"node 'bump' leads nowhere"),
    ("urgency: int", "urgency: intt", r"there is no type 'intt'; did you mean 'int'\?"),
    ("writes: facts", "writes: fact", r"it writes 'fact', which is no field of state; did you mean 'facts'\?"),
    ("writes: facts", "writes: text", r"it writes 'text', which is an input, which nobody writes"),
    ("writes: lengths", "writes: draft", r"writes a list\[any\] into 'draft', which is a str"),
    ("{from: START, to: classify}", "{from: START, to: search}", r"node 'classify' cannot be reached from START"),
    ("helpers:words_of", "helpers:words", r"cannot be loaded: AttributeError"),
    ('{text: "{{ draft }}"}', '{txt: "{{ draft }}"}', r"cannot be called so: .*'text'"),
    ("{from: bump, to: END}", "{from: bump, to: split}", r"leads back; use a loop"),
    ("  facts: str\n", "  facts: {type: int, default: x}\n", r"the default 'x' is no int"),
    ("output: [label, draft", "output: [label, drft", r"the output 'drft' is no field; did you mean 'draft'\?"),
    ("fields: [count]", "fields: [cnt]", r"memory keeps 'cnt', which is no field"),
    ("    tool: lookup\n", "    tool: lookup\n    python: a:b\n", r"exactly one of .*; this one has tool and python"),
    ("    writes: order", "    writes: facts", r"two branches write 'facts'"),
    (
        '  draft: {type: str, default: ""}\n',
        "  draft: str\n",
        r"node 'write' looks at 'draft', which may have no value yet",
    ),
    ("to: [search, look]}", "to: [search, write]}", r"cannot be reached|go through"),
    ("writes: facts", "writes: 3", r":27:13: nodes.search.writes must be a text or a list$"),
    ("max: 3", "max: three", r"edges.3.loop.max must be a whole number$"),
    ("  facts: str\n", "  facts: {typ: str}\n", r"'type' is missing\n.*unknown key 'typ'; did you mean 'type'\?$"),
    ("  facts: str\n", "  facts: 3\n", r"state.facts must be a text or a mapping$"),
    ("note: str?", "note: strr?", r":5:42: there is no type 'strr'; did you mean 'str'\?$"),
    (
        "until: good",
        "until: len(lengths) > 0",
        r":52:19: the condition .*, after 'write', looks at 'lengths', which may have",
    ),
    ("  nap: {sleep", "  END: {sleep", r"END stands for one end of the graph"),
    ("  nap: {sleep", "  1: {sleep", r"'1' is no name"),
    ("    writes: label\n", "    writes: label\n    retry: {attempts: 2}\n", r"retry is for tool and python nodes"),
]


@pytest.mark.parametrize(("old", "new", "message"), CHANGES, ids=[message[:40] for _, _, message in CHANGES])
def test_a_mistake_is_told_with_its_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in FULL

    with pytest.raises(WorkflowError, match=message) as caught:
        load(tmp_path, FULL.replace(old, new, 1))

    assert "workflow.yaml:" in str(caught.value)


def test_names_that_only_the_app_knows_are_checked_too(tmp_path: Path) -> None:
    with pytest.raises(WorkflowError, match=r":\d+:11: there is no tool 'serch'; did you mean 'search'\?"):
        make_app(tmp_path, FULL.replace("tool: search", "tool: serch"))
    with pytest.raises(WorkflowError, match=r"there is no agent 'auditr'; did you mean 'auditor'\?"):
        make_app(tmp_path, WAITING.replace("auditor", "auditr"))
    with pytest.raises(WorkflowError, match=r"needs the argument 'query'\n.*has no argument 'qury'; did you mean"):
        make_app(tmp_path, FULL.replace("{query:", "{qury:"))
    with pytest.raises(WorkflowError, match=r":30:24: argument 'order' is a str; tool 'lookup' takes an int$"):
        make_app(tmp_path, FULL.replace("{{ label.urgency }}", "{{ label.kind }}"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2", "expected"),
        ("", "a workflow is a mapping"),
        ("- a", "a workflow is a mapping"),
        ("name: x\n", "'nodes' is missing"),
        ("name: x\nname: y\n", "duplicate key"),
        (
            "a: &a [x, x, x]\n"
            + "".join(
                f"{c}: &{c} [*{p}, *{p}, *{p}, *{p}, *{p}, *{p}, *{p}, *{p}]\n"
                for p, c in zip("abcdefgh", "bcdefghi", strict=True)
            ),
            "take out its aliases",
        ),
        ("x: " + "[" * 60 + "]" * 60, "levels"),
        ("#" * 1_000_001, "1,000,001 bytes"),
    ],
    ids=["cut", "empty", "a list", "little", "twice", "a bomb", "deep", "large"],
)
def test_a_file_that_is_no_workflow_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(WorkflowError, match=message):
        load(tmp_path, text)


def test_a_recursive_type_is_refused(tmp_path: Path) -> None:
    text = FULL.replace("Label: {kind: str, urgency: int, note: str?}", "Label: {kind: str, urgency: int, note: Label}")

    with pytest.raises(WorkflowError, match="does one contain itself"):
        load(tmp_path, text)


# --- how they look, and what comes over --------------------------------------------------------


def test_the_graph_shows_every_way(tmp_path: Path) -> None:
    workflow = load(tmp_path, FULL)

    drawn = graph.mermaid(workflow)
    text = "\n".join(line for _, line in graph.text(workflow))

    assert "classify --> search" in drawn
    assert 'write -.->|"until good, at most 3x"| write' in drawn
    assert "START([START])" in drawn
    assert "├─▶ measure  when len(words) > 2" in text
    assert "↺ write  until good, at most 3x" in text


def test_a_node_may_have_a_name_that_is_a_word_of_mermaid(tmp_path: Path) -> None:
    drawn = graph.mermaid(load(tmp_path, FULL.replace("classify", "end")))

    assert "end_ --> search" in drawn
    assert 'end_(["end: model' in drawn


def test_the_schema_takes_what_the_reader_takes(tmp_path: Path) -> None:
    validator = jsonschema_rs.validator_for(workflow_schema())
    reader = YAML(typ="safe", pure=True)

    assert validator.is_valid(reader.load(FULL))
    assert validator.is_valid(reader.load(WAITING))
    assert not validator.is_valid(reader.load(FULL.replace("prompt: ", "promt: ", 1)))


FOREIGN = """
schema_version: "1.0"
flow: {name: my flow, description: Full, version: "1.0.0", owner: me}
state:
  fields:
    query: {type: str, required: true, description: Search query}
    results: {type: str, default: ""}
    tags: {type: list, default: []}
    profile: {type: object, schema: {name: {type: str, required: true}, age: {type: int}}}
    done: {type: bool, default: false}
nodes:
  - id: search
    prompt: "Search {state.query} for {q}"
    inputs: {q: "{state.query}"}
    outputs: [results]
    tools: [web_search]
    output_schema: {type: object, fields: [{name: results, type: str}]}
    llm: {temperature: 0.1, top_k: 3}
  - id: refine
    prompt: "Refine {state.results} of {state.query}"
    outputs: [results, done]
    output_schema: {type: object, fields: []}
edges:
  - {from: START, to: search}
  - from: search
    routes:
      - {condition: {logic: "state.query == 'x'"}, to: refine}
      - {condition: {logic: default}, to: END}
  - from: refine
    loop: {condition_field: state.done, exit_to: END, max_iterations: 3}
config:
  llm: {provider: google, model: gemini-2.5-flash-lite, temperature: 0.7}
  execution: {timeout: 120, max_retries: 3}
  memory: {enabled: true}
  observability: {mlflow: {enabled: true}}
"""


def test_a_workflow_of_the_other_project_comes_over(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.yaml"
    foreign.write_text(FOREIGN, encoding="utf-8")

    imported = import_workflow(foreign)
    workflow = load(tmp_path, dump(imported.workflow))

    spec = workflow.spec
    assert (spec.name, spec.model, spec.limits.max_attempts) == ("my_flow", "google:gemini-2.5-flash-lite", 4)
    search = spec.nodes["search"].model
    assert search is not None
    assert (search.prompt, search.temperature) == ("Search {{ query }} for {{ query }}", 0.1)
    told = "\n".join(imported.notes)
    for part in ("flow.owner", "web_search", "llm.top_k", "memory", "config.observability"):
        assert part in told


def test_what_is_no_file_of_the_other_project_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "workflow.yaml"
    path.write_text(FULL, encoding="utf-8")

    with pytest.raises(WorkflowError, match="it has no 'flow'"):
        import_workflow(path)

    path.write_text("flow: 3\nstate: {fields: {a: str}}\nnodes: [{prompt: x}]\nedges: [{from: a, routes: [{}]}]\n")
    with pytest.raises(
        WorkflowError, match=r":1:7: flow must be a mapping(.*\n){3}.*routes.0 must be a mapping with 'to'"
    ):
        import_workflow(path)
