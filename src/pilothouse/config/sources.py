"""Where settings come from: the environment, `pilothouse.toml`, the command line; and how they are shown."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from pathlib import Path
from typing import Any, NamedTuple, get_args

from pydantic import AliasChoices, ValidationError

from pilothouse.config.settings import PREFIX, Settings
from pilothouse.errors import ConfigError

TOML_NAME = "pilothouse.toml"

PASSWORDS = re.compile(r"(?P<before>://[^:/?#@\s]*:)\S+(?=@)|(?P<key>password=)[^&\s]+")
"""In a URL: between user and host, or as an option."""

SECRETS = frozenset(
    {"webhook_secret", "approval_secret", "session_secret", "otlp_headers", "mlflow_token", "log_token"}
)
"""Settings that nobody may see."""


class Shown(NamedTuple):
    """A setting as `config show` prints it: secrets masked, `source` says where it came from."""

    name: str
    value: str
    source: str


def load_settings(**overrides: Any) -> Settings:
    """Reads the settings; `overrides` (those that are not None) beat the environment, which beats the file.

    Raises ConfigError that names the setting, its value and where it was set.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    from_file = {name: value for name, value in _read_toml().items() if not _environment_name(name)}
    try:
        return Settings(**{**from_file, **given})
    except ValidationError as error:
        raise ConfigError("; ".join(_told(problem, given) for problem in error.errors())) from error


def describe_settings(**overrides: Any) -> list[Shown]:
    """Every setting with its value and source, in their order."""
    settings, from_file = load_settings(**overrides), _read_toml()
    return [
        Shown(name, _shown(name, getattr(settings, name)), _source(name, overrides, from_file))
        for name in Settings.model_fields
    ]


def environment_names(name: str) -> list[str]:
    """The names of a setting in the environment, the first that is set wins."""
    alias = Settings.model_fields[name].validation_alias
    others = [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else []
    return [*others, PREFIX + name.upper()]


def _environment_name(name: str) -> str | None:
    """The variable that sets a setting now, if any."""
    known = {variable.upper() for variable in os.environ}
    return next((variable for variable in environment_names(name) if variable in known), None)


def _source(name: str, overrides: dict[str, Any], from_file: dict[str, Any]) -> str:
    if overrides.get(name) is not None:
        return "command line"
    variable = _environment_name(name)
    if variable is not None:
        return variable
    return TOML_NAME if name in from_file else "default"


def _read_toml() -> dict[str, Any]:
    path = Path(TOML_NAME)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path.absolute()} cannot be read: {error}") from error
    for key in values:
        if key not in Settings.model_fields:
            close = _meant_by(key)
            hint = f"did you mean {close!r}?" if close else "`pilothouse config show` lists the settings"
            raise ConfigError(f"{path.absolute()}: there is no setting {key!r}; {hint}")
    return values


def _meant_by(key: str) -> str | None:
    """The setting that a key comes closest to. Names of the environment count, also written as maxTokensPerTask."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).upper()
    named = next((field for field in Settings.model_fields if name in environment_names(field)), None)
    return named or next(iter(difflib.get_close_matches(key, Settings.model_fields, n=1)), None)


def _told(problem: Any, given: dict[str, Any]) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not problem["loc"]:
        return f"settings: {message}"
    alias = str(problem["loc"][0])
    name = next(known for known in Settings.model_fields if alias in (known, *environment_names(known)))
    value, inside = problem["input"], [str(part) for part in problem["loc"][1:]]
    if problem["type"] == "unexpected_keyword_argument":
        message = f"there is no key {inside[-1]!r}{_hint(name, inside[-1])}"
    shown = _shown(name, value) if isinstance(value, str) else value
    return f"setting {'.'.join([name, *inside])} = {shown!r} ({_source(name, given, {name: value})}): {message}"


def _hint(setting: str, key: str) -> str:
    """The key of a part of the setting that comes closest to one that does not exist."""
    kinds = get_args(Settings.model_fields[setting].annotation)
    known = [field for kind in kinds for field in getattr(kind, "__dataclass_fields__", ()) if field[0] != "_"]
    close = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; the keys are {', '.join(known)}"


def _shown(name: str, value: object) -> str:
    return "***" if name in SECRETS and value else mask(value)


def mask(value: object) -> str:
    """Passwords in URLs are not for eyes, even where the URL is not a good one."""
    if isinstance(value, dict):
        return "; ".join(f"{name}: {mask(item)}" for name, item in value.items())
    text = "" if value is None else str(value)
    return PASSWORDS.sub(r"\g<before>\g<key>***", text)
