"""`read_file` and `write_file`: files below one folder, and none outside of it, whatever links lead there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from pilothouse.domain.effects import Effect
from pilothouse.engine.tools import Tool, ToolOptions, make_tool
from pilothouse.errors import ConfigError, ToolError

MAX_BYTES = 1_000_000


def read_file(root: str | Path, *, name: str = "read_file", max_bytes: int = MAX_BYTES) -> Tool:
    """A tool that reads text files below `root`, up to `max_bytes`. Raises ConfigError for a root that is no folder."""
    folder = _folder(root, name)

    def read(path: str) -> str:
        """Reads a text file."""
        found = inside(folder, path)
        try:
            with found.open("rb") as file:
                content = file.read(max_bytes + 1)
        except OSError as error:
            raise ToolError(f"{path!r} cannot be read: {error.strerror}") from error
        if len(content) > max_bytes:
            raise ToolError(f"{path!r} has more than {max_bytes:,} bytes")
        return content.decode("utf-8", errors="replace")

    return make_tool(read, name, ToolOptions(effect=Effect.READ, platform="files"))


def write_file(root: str | Path, *, name: str = "write_file", max_bytes: int = MAX_BYTES) -> Tool:
    """A tool that writes whole text files below `root`: all of a file or nothing, so writing twice is writing once."""
    folder = _folder(root, name)

    def write(path: str, text: str) -> int:
        """Writes a text file, in the place of the one that is there; returns how many bytes."""
        content = text.encode()
        if len(content) > max_bytes:
            raise ToolError(f"the text has {len(content):,} bytes; at most {max_bytes:,} are allowed")
        found = inside(folder, path)
        try:
            found.parent.mkdir(parents=True, exist_ok=True)
            _replace(found, content)
        except OSError as error:
            raise ToolError(f"{path!r} cannot be written: {error.strerror}") from error
        return len(content)

    return make_tool(write, name, ToolOptions(effect=Effect.IDEMPOTENT, platform="files"))


def _folder(root: str | Path, name: str) -> Path:
    folder = Path(root).resolve()
    if not folder.is_dir():
        raise ConfigError(f"tool {name!r}: {root} is no folder")
    return folder


def inside(folder: Path, path: str) -> Path:
    """The place of a path below the folder. Raises ToolError for one that leads out of it."""
    found = (folder / path).resolve()
    if not found.is_relative_to(folder) or "\x00" in path:
        raise ToolError(f"{path!r} leads out of the folder of this tool")
    return found


def _replace(path: Path, content: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
