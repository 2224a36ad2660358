"""No function and no class without a use: in the product, its tests, its benchmarks or its examples."""

from __future__ import annotations

from pathlib import Path

from vulture import Vulture

from tests.architecture.source_tree import PACKAGE, ROOT, name_of

CALLED_BY_DECORATOR = [
    "@router.*",
    "@app.*",
    "@*.agent",
    "@pytest.*",
    "@field_*",
    "@model_*",
    "@*.command",
    "@*.default",
    "@initialize",  # Hypothesis
    "@invariant",
    "@precondition",
    "@rule",
]
CALLED_BY_NAME = [
    "__call__",  # Python, as the next one
    "__getattr__",
    "_agenerate",  # LangChain, as the next two
    "_generate",
    "_llm_type",
    "_process_events",  # asyncio, as the next one
    "_write_to_self",
    "aput",  # LangGraph, as the next one
    "aput_writes",
    "collect",  # prometheus-client
    "do_GET",  # http.server
    "handle_error",  # socketserver
    "get_model",  # the OpenAI Agents SDK, as the next two
    "get_response",
    "stream_response",
    "length_of",  # workflows of the tests, as the next one
    "words_of",
    "prepare_request",  # Pydantic AI, as the next two
    "handle_deferred_tool_calls",
    "wrap_tool_execute",
    "log_message",  # http.server
    "pytest_*",
    "settings_customise_sources",  # pydantic-settings
    "teardown",  # Hypothesis
]


def test_every_function_and_class_is_used() -> None:
    vulture = Vulture(ignore_names=CALLED_BY_NAME, ignore_decorators=CALLED_BY_DECORATOR)
    folders = [folder for name in ("src", "tests", "bench", "examples") if (folder := ROOT / name).is_dir()]

    vulture.scavenge(folders)

    unused = [*vulture.unused_funcs, *vulture.unused_methods, *vulture.unused_props, *vulture.unused_classes]
    # The command line names its commands in strings, so that they are imported only when they are called.
    dead = [
        f"{name_of(item.filename)}:{item.first_lineno} {item.name}" for item in unused if not _is_command(item.filename)
    ]
    assert not dead, "remove it or use it:\n" + "\n".join(dead)


def _is_command(path: Path) -> bool:
    return path.is_relative_to(PACKAGE / "cli")
