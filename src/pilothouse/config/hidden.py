"""The secrets that this process has been given, by value: what must be in nothing that leaves it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from pilothouse.config.environment import HARMLESS, HARMLESS_PREFIXES
from pilothouse.config.settings import Settings
from pilothouse.config.sources import SECRETS, TOML_NAME, environment_names

_NAMES = re.compile(r"KEY|TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|AUTH|COOKIE", re.IGNORECASE)
_TEXTS = re.compile(r"[\"']([^\"'\n]+)[\"']")
_IN_URLS = (re.compile(r"://[^:/?#@\s]*:(\S+)(?=@)"), re.compile(r"(?:password|token|key)=([^&\s]+)", re.IGNORECASE))


def known_secrets(settings: Settings | None) -> frozenset[str]:
    """Values of settings and variables that are secret, and passwords in URLs.

    None: the settings cannot be read, so nobody knows which of them are; then everything that was given may be.
    """
    return frozenset(value for value in _found(settings) if value)


def _found(settings: Settings | None) -> Iterator[str]:
    plain = {name for field in Settings.model_fields if field not in SECRETS for name in environment_names(field)}
    for name, value in os.environ.items():
        if _NAMES.search(name) and name.upper() not in plain:
            yield value
        yield from _passwords(value)
    if settings is None:
        yield from _everything()
        return
    for name in Settings.model_fields:
        value = str(getattr(settings, name) or "")
        yield from _passwords(value)
        if name in SECRETS:
            yield from _whole_and_parts(value)
    for variable in _variables(settings):
        yield os.environ.get(variable, "")


def _everything() -> Iterator[str]:
    """Every variable that is not known to be harmless, and every text of the file."""
    for name, value in os.environ.items():
        if name not in HARMLESS and not name.startswith(HARMLESS_PREFIXES):
            yield value
    try:
        for text in _TEXTS.findall(Path(TOML_NAME).read_text(encoding="utf-8", errors="replace")):
            yield from _whole_and_parts(text)
    except OSError:
        return


def _whole_and_parts(value: str) -> Iterator[str]:
    """Headers are given as NAME=VALUE, NAME=VALUE; each of the values is a secret too."""
    yield value
    yield from (each.partition("=")[2].strip() for each in value.split(","))


def _variables(settings: Settings) -> Iterator[str]:
    """The variables that settings name as holding a key or a secret."""
    for provider in settings.providers.values():
        yield from provider.keys
    for name, rule in settings.secrets.items():
        yield rule.env or name
        yield from rule.tenants.values()


def _passwords(text: str) -> Iterator[str]:
    for pattern in _IN_URLS:
        for found in pattern.findall(text):
            yield found
            yield unquote(found)
