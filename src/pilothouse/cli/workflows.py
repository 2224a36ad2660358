"""`workflow`: check, draw and import workflows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.text import Text

from pilothouse.cli.output import AsJson, console, errors, print_json

File = Annotated[Path, Parameter(help="The workflow's YAML file.")]
AppReference = Annotated[
    str | None, Parameter(help='The App whose tools and agents it names, as "module:attribute"; unchecked without one.')
]
STYLES = {"node": "bold", "arrow": "", "back": "yellow"}


def check(file: File, *, app: AppReference = None, as_json: AsJson = False) -> None:
    """Check a workflow: every mistake with its line and column."""
    from pilothouse.agents.workflow.definition import load_workflow

    _look_here()
    workflow = load_workflow(file)
    if app is not None:
        from pilothouse.config import load_settings
        from pilothouse.platform import load_app

        load_app(app, load_settings()).check_workflow(workflow)
    spec = workflow.spec
    if as_json:
        return print_json({"file": str(file), "name": spec.name, "nodes": len(spec.nodes), "edges": len(spec.edges)})
    tools = sorted({name for _, name in workflow.tools()})
    out = console()
    out.print(
        Text.assemble((f"{file} is fine", "bold green"), f": {spec.name}, {len(spec.nodes)} nodes"), soft_wrap=True
    )
    if tools and app is None:
        out.print(
            f"  it needs the tools {', '.join(tools)}; --app MODULE:APP looks whether they are there", style="dim"
        )
    return None


def graph(
    file: File,
    *,
    mermaid: Annotated[bool, Parameter(negative="", help="In Mermaid's language, for Markdown.")] = False,
    as_json: AsJson = False,
) -> None:
    """Draw a workflow in the terminal, or in Mermaid's language."""
    from pilothouse.agents.workflow import graph as drawing
    from pilothouse.agents.workflow.definition import load_workflow

    _look_here()
    workflow = load_workflow(file)
    if as_json:
        return print_json([arrow._asdict() for arrow in drawing.arrows(workflow)])
    if mermaid:
        sys.stdout.write(drawing.mermaid(workflow))
        return None
    out = console()
    for kind, line in drawing.text(workflow):
        out.print(line, style=STYLES[kind], soft_wrap=True)
    return None


def schema(*, as_json: AsJson = False) -> None:
    """Print the JSON Schema of workflows, for editors: indented, or on one line with --json."""
    import json

    from pilothouse.agents.workflow.json_schema import workflow_schema

    if as_json:
        return print_json(workflow_schema())
    sys.stdout.write(json.dumps(workflow_schema(), indent=2, ensure_ascii=False) + "\n")
    return None


def import_file(
    file: Annotated[Path, Parameter(help="A YAML file of configurable-agents (flow, state, nodes, edges, config).")],
    *,
    output: Annotated[Path | None, Parameter(help="Where to write the workflow; the terminal unless given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Turn a file of configurable-agents into a workflow, and say what could not be carried over."""
    from pilothouse.agents.workflow.importer import dump, import_workflow

    imported = import_workflow(file)
    text = dump(imported.workflow)
    if output is not None:
        output.write_text(text, encoding="utf-8")
    if as_json:
        return print_json({"workflow": imported.workflow, "notes": imported.notes})
    if output is None:
        sys.stdout.write(text)
    else:
        console().print(
            Text.assemble((f"{output} is written", "bold green"), f"; check it: pilothouse workflow check {output}")
        )
    for note in imported.notes:
        errors().print(f"note: {note}", style="yellow", soft_wrap=True)
    return None


def _look_here() -> None:
    """Python nodes are looked for where the worker would look: in the working directory."""
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
