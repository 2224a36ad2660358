"""The journal of one attempt: what earlier attempts finished answers from here, and is held against the request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple

from pydantic_core import to_jsonable_python

from pilothouse import payloads
from pilothouse.control.halts import HALTED, RUNAWAY_KIND
from pilothouse.errors import DivergenceError, DuplicateStep
from pilothouse.store.database import Row

REQUEST_SHOWN = 1024
"""How much of a request is kept to show what was expected, in characters; its hash covers all of it."""

MAX_NAME_LENGTH = 255

HALT_KIND, INTENT_KIND = "halt", "intent"

NAME_PARTS_BESIDE = {INTENT_KIND: 1, "approval": 1, "asked": 2, HALT_KIND: 2, RUNAWAY_KIND: 2}
"""What is noted beside a step, on the way to its end, has its key and so many more parts: its intent, what people were
asked before it, why it halted.
"""

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
        self._of_kind = Counter(row["kind"] for row in self._stored.values())
        self._beside = _notes_by_step(self._stored.values())
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
        return self._open(self._key(name), kind, request)

    def open_beside(self, key: str, kind: str, request: Any) -> tuple[StepRequest, Row | None]:
        """As `open`, for what is noted beside a step: `key` is the step's own and more."""
        return self._open(self._claim(key, key), kind, request)

    def _open(self, key: str, kind: str, request: Any) -> tuple[StepRequest, Row | None]:
        text = payloads.encode(to_jsonable_python(request, fallback=_type_name, inf_nan_mode="strings"))
        asked = StepRequest(key, kind, text[:REQUEST_SHOWN], payloads.digest(f"{kind}:{text}"))
        stored = self._stored.get(key)
        if stored is None or stored["state"] == "retryable":
            self._of_kind[kind] += stored is None
            return asked, None
        self._check(asked, stored)
        self._to_replay.discard(key)
        self._to_replay.difference_update(self._beside.get(key, ()))
        self.replayed += 1
        return asked, stored

    @staticmethod
    def key_of(name: str) -> str:
        """The whole key of what is called `name` here."""
        path = current_path.get()
        return f"{path}/{name}" if path else name

    def _key(self, name: str) -> str:
        if not name or len(name) > MAX_NAME_LENGTH:
            raise DuplicateStep(name, f"step {name!r}: a step's name has 1 to {MAX_NAME_LENGTH} characters")
        return self._claim(self.key_of(name), name)

    def _claim(self, key: str, name: str) -> str:
        if key in self._used:
            raise DuplicateStep(
                key,
                f"step {key!r} is used twice in one run, so its checkpoints could not be told apart; "
                f'give each its own name, for example f"{name}-{{i}}"',
            )
        self._used.add(key)
        return key

    def finished(self, kind: str) -> list[Row]:
        """The steps of a kind that earlier attempts have finished, in their order; they need not be asked for again."""
        rows = [row for row in self._stored.values() if row["kind"] == kind and row["state"] == "succeeded"]
        self._to_replay.difference_update(row["key"] for row in rows)
        self.replayed += len(rows)
        return sorted(rows, key=lambda row: (row["started_at"], row["finished_at"]))

    def knows(self, name: str) -> bool:
        """Whether an earlier attempt has finished the step of this key."""
        return name in self._stored

    def pass_over(self, key: str) -> None:
        """The step of this key needs not be asked for again."""
        self._to_replay.discard(key)

    def failure(self, key: str) -> Row | None:
        """The failure of a step that may be tried again."""
        stored = self._stored.get(key)
        return stored if stored is not None and stored["state"] == "retryable" else None

    def count(self, kind: str) -> int:
        """How many steps of a kind this run has finished or begun."""
        return self._of_kind[kind]

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


def _notes_by_step(rows: Iterable[Row]) -> dict[str, list[str]]:
    """The keys of what is noted beside each step. Whoever answers a step does not ask for them any more."""
    found: dict[str, list[str]] = {}
    for row in rows:
        parts = NAME_PARTS_BESIDE.get(row["kind"], 0)
        if parts:
            notes = found.setdefault(row["key"].rsplit(".", parts)[0], [])
            notes.append(row["key"])
            if row["key"].endswith(HALTED):
                notes.append(row["key"].rsplit(".", 1)[0])  # the signal that let it go on
    return found


def _migrated(key: str, value: Any, version: int) -> Row:
    return {
        "key": key,
        "kind": "migrated",
        "state": "succeeded",
        "result": payloads.encode(value),
        "request_hash": MIGRATED,
        "state_version": version,
    }


def _type_name(value: object) -> str:
    """An argument that is no data, such as a client object, is represented by its type."""
    return f"<{type(value).__module__}.{type(value).__qualname__}>"
