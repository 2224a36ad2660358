"""JSON lines that carry a digest: whoever reads a file of them sees whether it was cut or changed."""

from __future__ import annotations

import hashlib
import json
from typing import Protocol


class ByteSink(Protocol):
    def write(self, data: bytes, /) -> object: ...


class DigestedLines:
    """Writes values as lines of JSON, and the SHA-256 of all lines before into the last."""

    def __init__(self, file: ByteSink) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def write(self, value: object) -> None:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass") + b"\n"
        self._digest.update(text)
        self._file.write(text)

    def close(self, rows: dict[str, int]) -> None:
        """The last line: how many rows of each table there are, and the digest."""
        self.write({"rows": rows, "digest": self._digest.hexdigest()})
