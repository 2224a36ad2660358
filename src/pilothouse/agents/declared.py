"""What is declared of the tools of a framework, in their metadata or at the agent's registration: the words that
`App.tool` takes, so that policies, limits and autonomy look at them in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NamedTuple, cast

from pydantic import TypeAdapter, ValidationError

from pilothouse.domain.effects import Effect
from pilothouse.engine.tools import ToolFacts, ToolOptions, check_named, check_options
from pilothouse.errors import ConfigError

WORDS = tuple(ToolFacts.__annotations__)
FACTS = TypeAdapter(ToolFacts)
MISSPELT_FROM = 0.8
"""Metadata may say other things too; what is so like a word of ours is meant to be one."""


class KnownTool(NamedTuple):
    """A tool as its framework shows it. `arguments` are the names of what a caller gives."""

    name: str
    metadata: Mapping[str, Any] | None
    arguments: Iterable[str]


@dataclass(frozen=True, slots=True)
class Declarations:
    """What an agent's registration says of its tools, by name; it beats what their metadata say, word by word."""

    registered: Mapping[str, Mapping[str, Any]]

    def of(self, tool: KnownTool) -> ToolOptions:
        """One that says nothing is a write. Raises ConfigError for what cannot be."""
        said = {**_own_words(tool), **self.registered.get(tool.name, {})}
        options = _read(tool.name, said)
        check_named(tool.name, options, tool.arguments)
        return options

    def check(self, tools: Iterable[KnownTool], *, are_all: bool) -> None:
        """Looks at the tools that are known at the start, `are_all` where no others may come. Raises ConfigError."""
        found = set[str]()
        for tool in tools:
            self.of(tool)
            found.add(tool.name)
        for name in self.registered.keys() - found if are_all else ():
            raise ConfigError(f"effects: the agent has no tool {name!r}; it has {', '.join(sorted(found)) or 'none'}")


def read_registered(said: Mapping[str, str | Mapping[str, Any]]) -> Declarations:
    """Of `effects`: an effect class, or several words. Raises ConfigError."""
    words = {tool: {"effect": each} if isinstance(each, str) else each for tool, each in said.items()}
    for tool, each in words.items():
        for word in each:
            if word not in WORDS:
                raise _unknown(tool, word)
        _read(tool, each)
    return Declarations(words)


def _own_words(tool: KnownTool) -> dict[str, Any]:
    said = tool.metadata or {}
    for word in said:
        if word not in WORDS and get_close_matches(word, WORDS, n=1, cutoff=MISSPELT_FROM):
            raise _unknown(tool.name, word)
    return {word: said[word] for word in WORDS if word in said}


def _unknown(tool: str, word: str) -> ConfigError:
    near = get_close_matches(word, WORDS, n=1, cutoff=0.5)
    meant = f"did you mean {near[0]!r}?" if near else f"there is {', '.join(WORDS)}"
    return ConfigError(f"tool {tool!r} declares {word!r}, which nothing looks at; {meant}")


def _read(tool: str, said: Mapping[str, Any]) -> ToolOptions:
    effect = said.get("effect", Effect.WRITE)
    if effect not in tuple(Effect):
        raise ConfigError(f"tool {tool!r} is said to be {effect!r}; there is {', '.join(Effect)}")
    try:
        values = FACTS.validate_python(said, strict=True)
    except ValidationError as error:
        told = "; ".join(f"{item['loc'][0]} is {item['input']!r}: {item['msg']}" for item in error.errors())
        raise ConfigError(f"tool {tool!r}: {told}") from None
    options = ToolOptions(**cast(dict[str, Any], {**values, "effect": Effect(effect)}))
    check_options(tool, options)
    return options
