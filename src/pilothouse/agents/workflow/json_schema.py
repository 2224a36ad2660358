"""The JSON Schema of the format, for editors: `# yaml-language-server: $schema=…` in the first line of a workflow."""

from __future__ import annotations

from typing import Any

from pilothouse.agents.workflow.format import WorkflowSpec


def workflow_schema() -> dict[str, Any]:
    """A JSON Schema, draft 2020-12, of a whole workflow."""
    schema = WorkflowSpec.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Pilothouse workflow"}
