"""Tools: functions with a declared effect, which code and models may call; their arguments are checked first."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError, PydanticUserError
from typing_extensions import TypedDict

from pilothouse import payloads
from pilothouse.domain.effects import Effect
from pilothouse.domain.policies import TIER_NAMES, Billing
from pilothouse.domain.retries import RetryPolicy
from pilothouse.engine.signature import StepTraits, encode_result, step_traits
from pilothouse.errors import ConfigError, ToolError

Function = Callable[..., Any]

MARK = "__pilothouse_tool__"
"""The attribute under which a function carries its tool."""

EFFECT_KEY = "effect_key"
"""A parameter of this name gets the key of the call's effect: the same for every try, so that a service can tell."""


@dataclass(frozen=True, slots=True)
class Secret:
    """In `token: Annotated[str, Secret("CRM_TOKEN")]`: the argument comes from the secrets, never from a model."""

    name: str


class ToolFacts(TypedDict, total=False):
    """What limits, policies and autonomy look at, of any tool, an App's or a framework's; see `App.tool`."""

    effect: str
    platform: str
    cost_usd: float
    risk: int
    amount: str
    people: str
    confidence: str
    billing: Literal["none", "one_time", "recurring"]
    data_class: str


@dataclass(frozen=True, slots=True)
class ToolOptions:
    """See `App.tool`."""

    effect: Effect = Effect.WRITE
    platform: str | None = None
    cost_usd: float = 0.0
    idempotent: bool = False
    verify: Function | None = None
    timeout_seconds: float | None = 60.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    risk: int = 0
    amount: str | None = None
    people: str | None = None
    confidence: str | None = None
    billing: Billing = "none"
    data_class: str | None = None

    @property
    def cost_microusd(self) -> int:
        return round(self.cost_usd * 1_000_000)


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as the engine calls it. `schema` is the JSON Schema of what a caller gives; `validate` turns that into the
    function's arguments, or refuses it with ToolError; `secrets` maps parameters to names of secrets.
    """

    name: str
    function: Function
    description: str
    options: ToolOptions
    schema: Mapping[str, Any]
    validate: Callable[[Mapping[str, Any]], dict[str, Any]]
    secrets: Mapping[str, str]
    takes_effect_key: bool

    @property
    def effect(self) -> Effect:
        return self.options.effect

    @property
    def platform(self) -> str | None:
        return self.options.platform

    @property
    def traits(self) -> StepTraits:
        return step_traits(self.function)

    @property
    def cost_microusd(self) -> int:
        return self.options.cost_microusd

    @property
    def is_repeatable(self) -> bool:
        """Whether a call that may have happened is just made again."""
        return self.options.idempotent or self.effect is Effect.IDEMPOTENT

    def plain(self, result: Any) -> Any:
        """A result as JSON data, as a model sees it."""
        return payloads.decode(encode_result(result, self.traits.output, f"tool {self.name!r}"))


def _validator(name: str, model: type[BaseModel]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    def validate(arguments: Mapping[str, Any]) -> dict[str, Any]:
        try:
            parsed = model.model_validate(arguments)
        except ValidationError as error:
            told = "; ".join(f"{_place(item['loc'])}: {item['msg']}" for item in error.errors())
            raise ToolError(f"the arguments do not fit tool {name!r}: {told}") from None
        return {field: getattr(parsed, field) for field in model.model_fields}

    return validate


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location) or "arguments"


def make_tool(function: Function, name: str | None = None, options: ToolOptions | None = None) -> Tool:
    """Raises ConfigError where the function or an option cannot be used."""
    options = options or ToolOptions()
    chosen = name or str(getattr(function, "__name__", type(function).__name__))
    if not callable(function):
        raise ConfigError(f"tool {chosen!r} is {function!r}, which cannot be called; give a function")
    if not chosen.replace("-", "_").isidentifier() or len(chosen) > 64:
        raise ConfigError(f"tool {chosen!r}: models take names of up to 64 letters, digits, _ and -")
    check_options(chosen, options)
    hints = _type_hints(function, chosen)
    secrets = {parameter: secret.name for parameter, hint in hints.items() if (secret := _secret_of(hint)) is not None}
    fields, takes_effect_key = _fields(function, chosen, hints, secrets)
    check_named(chosen, options, fields)
    try:
        arguments: type[BaseModel] = create_model(chosen, __config__=ConfigDict(extra="forbid"), **fields)
        schema = arguments.model_json_schema()
        TypeAdapter(hints.get("return", Any))
    except (PydanticSchemaGenerationError, PydanticInvalidForJsonSchema, PydanticUserError) as error:
        raise ConfigError(f"tool {chosen!r}: its types cannot be read from JSON: {error}") from error
    schema.pop("title", None)
    description = inspect.getdoc(function) or ""
    validate = _validator(chosen, arguments)
    return Tool(chosen, function, description, options, schema, validate, secrets, takes_effect_key)


def check_options(name: str, options: ToolOptions) -> None:
    """Raises ConfigError for what cannot be."""
    if options.cost_usd < 0:
        raise ConfigError(f"tool {name!r}: cost_usd is {options.cost_usd}; it must be 0 or more")
    if options.timeout_seconds is not None and options.timeout_seconds <= 0:
        raise ConfigError(f"tool {name!r}: timeout_seconds is {options.timeout_seconds}; it must be more than 0")

    if options.risk not in range(len(TIER_NAMES)):
        raise ConfigError(f"tool {name!r}: risk is {options.risk}; it is a tier from 0 to 4")
    if options.billing not in ("none", "one_time", "recurring"):
        raise ConfigError(f"tool {name!r}: billing is {options.billing!r}; it is none, one_time or recurring")


def check_named(name: str, options: ToolOptions, fields: Iterable[str]) -> None:
    """What says how much must be an argument, or no policy would ever see it."""
    for option in ("amount", "people", "confidence"):
        argument = getattr(options, option)
        if argument is not None and argument not in fields:
            known = ", ".join(fields) or "none"
            raise ConfigError(
                f"tool {name!r}: {option} names {argument!r}, which is no argument of it; they are {known}"
            )


def _type_hints(function: Function, name: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as error:
        raise ConfigError(f"tool {name!r}: a type annotation cannot be resolved: {error}") from error


def _secret_of(hint: Any) -> Secret | None:
    return next((each for each in getattr(hint, "__metadata__", ()) if isinstance(each, Secret)), None)


def _fields(
    function: Function, name: str, hints: Mapping[str, Any], secrets: Mapping[str, str]
) -> tuple[dict[str, Any], bool]:
    """What callers give, as fields of a model, and whether the function wants the effect's key."""
    fields: dict[str, Any] = {}
    takes_effect_key = False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ConfigError(f"tool {name!r}: parameter {parameter} cannot be filled from JSON; name each parameter")
        if parameter.name == EFFECT_KEY:
            takes_effect_key = True
        elif parameter.name not in secrets:
            is_required = parameter.default is inspect.Parameter.empty
            fields[parameter.name] = (hints.get(parameter.name, Any), ... if is_required else parameter.default)
    return fields, takes_effect_key


class ToolSource(Protocol):
    """Tools that are not known before something is asked for them, such as those of an MCP server."""

    @property
    def name(self) -> str: ...
    async def find_tools(self) -> list[Tool]: ...
    async def close(self) -> None: ...


class Toolbox:
    """The tools that an App knows by name, and its sources of others."""

    def __init__(self) -> None:
        self._tools: dict[str, Tool] = {}
        self._sources: dict[str, ToolSource] = {}

    def __iter__(self) -> Iterator[Tool]:
        return iter(tuple(self._tools.values()))

    @property
    def names(self) -> tuple[str, ...]:
        return (*self._tools, *self._sources)

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(self._sources)

    def add(self, tool: Tool) -> None:
        """Raises ConfigError for a name that is taken."""
        self._refuse_double(tool.name)
        self._tools[tool.name] = tool

    def add_source(self, source: ToolSource) -> None:
        """Raises ConfigError for a name that is taken."""
        self._refuse_double(source.name)
        self._sources[source.name] = source

    def _refuse_double(self, name: str) -> None:
        if name in self._tools or name in self._sources:
            raise ConfigError(f"two tools are named {name!r}; give one another name=…")

    async def find(self, wanted: Function | Tool | str) -> Tool:
        """One tool. A function that was never registered counts as a `write`. Raises ToolError for an unknown name."""
        if isinstance(wanted, Tool):
            return wanted
        if isinstance(wanted, str):
            return await self._named(wanted)
        marked = getattr(wanted, MARK, None)
        return marked if isinstance(marked, Tool) else make_tool(wanted)

    async def find_all(self, wanted: Sequence[Function | Tool | str]) -> dict[str, Tool]:
        """The tools by their names; the name of a source stands for all of its tools."""
        found: dict[str, Tool] = {}
        for each in wanted:
            source = self._sources.get(each) if isinstance(each, str) else None
            tools = [await self.find(each)] if source is None else await source.find_tools()
            found.update({tool.name: tool for tool in tools})
        return found

    async def close(self) -> None:
        for source in self._sources.values():
            await source.close()

    async def _named(self, name: str) -> Tool:
        if name in self._tools:
            return self._tools[name]
        for source in self._sources.values():
            if name.startswith(f"{source.name}_"):
                for tool in await source.find_tools():
                    if tool.name == name:
                        return tool
        raise ToolError(f"there is no tool {name!r}; the tools are {', '.join(sorted(self.names)) or 'none'}")


def name_of(wanted: Function | Tool | str) -> str:
    """What a tool is called, before it is found."""
    if isinstance(wanted, str):
        return wanted
    tool = wanted if isinstance(wanted, Tool) else getattr(wanted, MARK, None)
    return tool.name if isinstance(tool, Tool) else str(getattr(wanted, "__name__", type(wanted).__name__))
