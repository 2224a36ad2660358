"""The journal of one attempt: what earlier attempts finished answers from here, and is held against the request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple

from pydantic_core import to_jsonable_python

from pilothouse import payloads
from pilothouse.errors import DivergenceError, DuplicateStep
from pilothouse.store.database import Row

REQUEST_SHOWN = 1024
"""How much of a request is kept to show what was expected, in characters; its hash covers all of it."""

MAX_NAME_LENGTH = 255

MIGRATED = None
"""The request hash of a result that a migration has made: it answers any request under its key."""

StateMigration = Callable[[dict[str, Any]], Mapping[str, Any]]
"""Takes the results of finished steps by key, as plain JSON values, and returns them as the next version wants them."""

current_path: ContextVar[str] = ContextVar("pilothouse_step_path", default="")


class StepRequest(NamedTuple):
    """What the code asks for: under which key, and which answer would still fit."""

    key: str
    kind: str
    text: str
    hash: str


class Journal:
    """The finished steps of a run's earlier attempts, and the keys that this attempt has used."""

    def __init__(self, checkpoints: Iterable[Row], *, lines_logged: int = 0) -> None:
        self._lines_to_skip = lines_logged
        self._stored = {row["key"]: row for row in checkpoints}
        self._used: set[str] = set()
        self._to_replay = {key for key, row in self._stored.items() if row["state"] != "retryable"}
        self.executed = 0
        self.replayed = 0

    def migrate(self, migrations: Mapping[int, StateMigration], *, to_version: int) -> None:
        """Puts the results of older versions through their migrations, one version at a time.

        What a migration returns stands for finished steps, whatever the code asks for under their keys. Failed steps
        stay as they are. Raises what a migration raises, and TypeError for one that returns no dict of JSON values.
        """
        for version in range(1, to_version):
            older = {k: row for k, row in self._stored.items() if row["state_version"] == version}
            results = {k: payloads.decode(row["result"]) for k, row in older.items() if row["state"] == "succeeded"}
            if results:
                self._replace(older.keys() & results.keys(), migrations[version](results), version + 1)

    def _replace(self, keys: Iterable[str], results: Mapping[str, Any], version: int) -> None:
        if not isinstance(results, Mapping):
            raise TypeError(f"the migration to version {version} returned {type(results).__name__}; return a dict")
        for key in keys:
            del self._stored[key]
            self._to_replay.discard(key)
        for key, value in results.items():
            self._stored[key] = _migrated(key, value, version)
            self._to_replay.add(key)

    @property
    def is_replaying(self) -> bool:
        """Whether an answer of an earlier attempt is still to come."""
        return bool(self._to_replay)

    def should_log(self) -> bool:
        """Whether a line is new. Lines on the way to where an earlier attempt was suspended have been written."""
        if self._lines_to_skip > 0:
            self._lines_to_skip -= 1
            return False
        return not self.is_replaying

    def open(self, name: str, kind: str, request: Any) -> tuple[StepRequest, Row | None]:
        """The request of a step and the checkpoint that answers it, if there is one.

        Raises DuplicateStep for a name used before, DivergenceError where the checkpoint answers something else.
        """
        key = self._key(name)
        text = payloads.encode(to_jsonable_python(request, fallback=_type_name, inf_nan_mode="strings"))
        asked = StepRequest(key, kind, text[:REQUEST_SHOWN], payloads.digest(f"{kind}:{text}"))
        stored = self._stored.get(key)
        if stored is None or stored["state"] == "retryable":
            return asked, None
        self._check(asked, stored)
        self._to_replay.discard(key)
        self.replayed += 1
        return asked, stored

    def _key(self, name: str) -> str:
        if not name or len(name) > MAX_NAME_LENGTH:
            raise DuplicateStep(name, f"step {name!r}: a step's name has 1 to {MAX_NAME_LENGTH} characters")
        path = current_path.get()
        key = f"{path}/{name}" if path else name
        if key in self._used:
            raise DuplicateStep(
                key,
                f"step {key!r} is used twice in one run, so its checkpoints could not be told apart; "
                f'give each its own name, for example f"{name}-{{i}}"',
            )
        self._used.add(key)
        return key

    @staticmethod
    def _check(asked: StepRequest, stored: Row) -> None:
        if stored["request_hash"] is MIGRATED:
            return
        if stored["kind"] == asked.kind and stored["request_hash"] == asked.hash:
            return
        raise DivergenceError(
            asked.key,
            f"step {asked.key!r} asks for something else than in the attempt that finished it: "
            f"expected {stored['kind']} {stored['request']}, found {asked.kind} {asked.text}; "
            "bring the code back, or redrive the run from the start",
        )


def _migrated(key: str, value: Any, version: int) -> Row:
    return {
        "key": key,
        "state": "succeeded",
        "result": payloads.encode(value),
        "request_hash": MIGRATED,
        "state_version": version,
    }


def _type_name(value: object) -> str:
    """An argument that is no data, such as a client object, is represented by its type."""
    return f"<{type(value).__module__}.{type(value).__qualname__}>"
