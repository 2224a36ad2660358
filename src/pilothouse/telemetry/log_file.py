"""Reads typed events back out of a log file of JSON lines, and follows it through renames and restarts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from pilothouse.errors import ConfigError
from pilothouse.telemetry.events import kinds

MAX_READ = 1 << 20


class EventFile:
    """What is in the file from its beginning on, or only what comes. Raises ConfigError where it cannot be read."""

    def __init__(self, path: Path, *, from_beginning: bool) -> None:
        self._path, self._kinds = path, kinds()
        self._rest = b""
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise ConfigError(
                f"{path} cannot be read: {error.strerror}; LOG_DESTINATION=file:PATH writes it"
            ) from error
        if not from_beginning:
            self._file.seek(0, os.SEEK_END)

    def read(self) -> list[dict[str, Any]]:
        """The events that came since the last call, at most a megabyte of them; none where there are none now."""
        data = self._file.read(MAX_READ)
        if not data:
            self._follow()
            data = self._file.read(MAX_READ)
        *lines, self._rest = (self._rest + data).split(b"\n")
        return list(self._events(lines))

    def close(self) -> None:
        self._file.close()

    def _events(self, lines: list[bytes]) -> Iterator[dict[str, Any]]:
        for line in lines:
            try:
                read = orjson.loads(line)
            except ValueError:
                continue  # of something else that writes there
            if isinstance(read, dict) and read.get("message") in self._kinds:
                yield read

    def _follow(self) -> None:
        """Once the old file is read to its end: the new one at its path, or the same one from its new beginning."""
        try:
            found = self._path.stat()
        except OSError:
            return  # the new one is not there yet
        open_one = os.fstat(self._file.fileno())
        if (found.st_dev, found.st_ino) != (open_one.st_dev, open_one.st_ino):
            new = self._path.open("rb")
            self._file.close()
            self._file, self._rest = new, b""
        elif found.st_size < self._file.tell():
            self._file.seek(0)
            self._rest = b""
