"""Whether the packages of the extra `llm` are there: a core installation runs agents without them."""

from __future__ import annotations

from importlib.util import find_spec

from pilothouse.errors import FatalError

MISSING = 'asking models needs more packages: pip install "pilothouse[llm]"'


def is_installed() -> bool:
    return find_spec("pydantic_ai") is not None


def require() -> None:
    """Raises FatalError, since trying again does not install anything."""
    if not is_installed():
        raise FatalError(MISSING)
