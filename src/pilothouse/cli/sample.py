"""An input that fits a JSON Schema, for the commands that `up` shows to try."""

from __future__ import annotations

from typing import Any

SAMPLES = {"string": "Ada", "integer": 1, "number": 1.5, "boolean": True, "array": [], "null": None}


def sample(schema: dict[str, Any], definitions: dict[str, Any] | None = None) -> Any:
    """A plain value of the schema's type with its required fields; constraints beyond that are not looked at."""
    known = schema.get("$defs", definitions or {})
    if "$ref" in schema:
        return sample(known[schema["$ref"].rsplit("/", 1)[-1]], known)
    for given in ("default", "const"):
        if given in schema:
            return schema[given]
    for options in ("examples", "enum"):
        if schema.get(options):
            return schema[options][0]
    if schema.get("anyOf"):
        return sample(schema["anyOf"][0], known)
    if "properties" in schema or schema.get("type") == "object":
        properties = schema.get("properties", {})
        return {name: sample(properties[name], known) for name in schema.get("required", ()) if name in properties}
    return SAMPLES.get(schema.get("type", ""), {})
