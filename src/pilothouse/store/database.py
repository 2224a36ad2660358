"""The one interface to the database, whichever it is: a work is a plain function over a `Transaction`, which the
database runs durably, or reads with, on a thread of its own; `open_database` picks the driver by the URL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.resources.abc import Traversable
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from pilothouse.clock import Clock, SystemClock
from pilothouse.errors import ConfigError
from pilothouse.store.closings import Closing

T = TypeVar("T")
C = TypeVar("C", bound=Closing)
Row: TypeAlias = dict[str, Any]


class PoolUse(NamedTuple):
    """How busy this process keeps its connections: how many it may open, how many are at work, how many calls wait."""

    size: int
    in_use: int
    waiting: int


class Transaction(Protocol):
    """What a work sees: named statements. Once a statement has failed, the whole work fails, even if it goes on.

    A call without exactly the statement's parameters raises TypeError, an unknown statement LookupError.
    """

    @property
    def dialect(self) -> str: ...

    def fetch_all(self, statement: str, **parameters: object) -> list[Row]:
        """All rows that the statement returns."""

    def fetch_one(self, statement: str, **parameters: object) -> Row | None:
        """The first row that the statement returns, or None."""

    def execute(self, statement: str, **parameters: object) -> int:
        """The number of rows that the statement changed."""

    def send(self, statement: str, **parameters: object) -> None:
        """Run the statement without waiting for it; its failure may show at a later statement or at the end."""

    def fetch_many(self, statement: str, rows: Sequence[Mapping[str, object]]) -> list[Row]:
        """All rows that the statement with @rows returns for `rows`, in no order; nothing runs when there are none."""

    def send_many(self, statement: str, rows: Sequence[Mapping[str, object]]) -> None:
        """Run the statement with @rows for `rows` without waiting for it; nothing runs when there are none."""

    def closing(self, kind: type[C]) -> C:
        """The one `kind` of this transaction; whatever it gathers is written once, when the work has returned."""

    def write_closings(self, tx: Transaction) -> None:
        """Write what was gathered. Drivers call it."""


Work: TypeAlias = Callable[[Transaction], T]


class Database(Protocol):
    """A store that is opened by `start` and closed by `close`, both blocking and safe to repeat.

    A work may be run again (deadlock, lost connection), so it must not change anything but through its transaction.
    Whatever a work raises undoes the work, and it alone, and comes out of the call. The store itself raises
    StoreUnavailable, StoreFull and StoreReadOnly for its own state, StoreError for a statement that failed.
    """

    @property
    def url(self) -> str: ...

    @property
    def dialect(self) -> str: ...

    @property
    def clock(self) -> Clock: ...

    def start(self) -> None: ...

    def close(self) -> None: ...

    async def transaction(self, work: Work[T], *, is_patient: bool = False) -> T:
        """Run the work; its result comes back only after the commit is durable.

        Raises OutcomeUnknown where the database went away during the commit and whether the work took place cannot be
        found out: not within some seconds (with `is_patient` the call waits instead), or not after a crash.
        """

    async def read(self, work: Work[T]) -> T:
        """Run the work on one snapshot, read-only, without blocking a writer."""

    def transaction_blocking(self, work: Work[T]) -> T:
        """`transaction` for a thread without an event loop."""

    def read_blocking(self, work: Work[T]) -> T:
        """`read` for a thread without an event loop."""

    def administer(self, work: Work[T]) -> T:
        """`transaction_blocking`, alone and on the direct connection; its statements are SQL texts instead of names."""

    def examine(self, work: Work[T]) -> T:
        """`read_blocking`, on the direct connection; its statements are SQL texts instead of names."""

    def notify(self, topic: str) -> None:
        """Hint to every listener, here and in other processes, that `topic` changed. Never blocks, never raises."""

    def listen(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call `callback(topic)` on each hint, from any thread; "*" is any topic. Returns the function that ends it."""

    def pool_use(self) -> PoolUse:
        """How busy the connections of this process are now."""

    def check(self) -> None:
        """Raise StoreUnavailable unless the database answers."""


def open_database(
    url: str,
    *,
    clock: Clock | None = None,
    pool_size: int = 8,
    direct_url: str | None = None,
    statements: Traversable | None = None,
) -> Database:
    """The database of a URL, not yet started: sqlite:///relative.db, sqlite:////absolute.db or postgresql://….

    `pool_size` bounds the PostgreSQL transactions that run at once. `direct_url` bypasses a pooler, for LISTEN and
    migrations. `statements` is the folder of the .sql files, the package's own unless given.
    Raises ConfigError for another URL, or where the PostgreSQL driver is not installed.
    """
    clock = clock or SystemClock()
    scheme, separator, rest = url.partition("://")
    match scheme if separator else "":
        case "sqlite":
            return _open_sqlite(url, rest, clock, statements)
        case "postgresql" | "postgres":
            return _open_postgres(url, clock, pool_size=pool_size, direct_url=direct_url, statements=statements)
    raise ConfigError(
        f"the database URL starts with {scheme[:20]!r}; write sqlite:///pilothouse.db or postgresql://user@host/database"
    )


def _open_sqlite(url: str, rest: str, clock: Clock, statements: Traversable | None) -> Database:
    from pilothouse.store.sqlite import SqliteDatabase

    parts = urlsplit(url)
    path = unquote(parts.path.removeprefix("/"))
    if parts.netloc or not rest.startswith("/") or path in ("", ":memory:"):
        raise ConfigError(f"{url} names no file; write sqlite:///relative.db or sqlite:////absolute.db")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    synchronous = options.pop("synchronous", "full").upper()
    if options or synchronous not in ("FULL", "NORMAL", "EXTRA"):
        raise ConfigError(f"{url}: the only option of a SQLite URL is ?synchronous=full, normal or extra")
    return SqliteDatabase(url, path, clock, synchronous=synchronous, statements=statements)


def _open_postgres(
    url: str, clock: Clock, *, pool_size: int, direct_url: str | None, statements: Traversable | None
) -> Database:
    try:
        from pilothouse.store.postgres import PostgresDatabase
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("psycopg"):
            raise
        raise ConfigError('PostgreSQL needs its driver: pip install "pilothouse[postgres]"') from error
    return PostgresDatabase(url, clock, pool_size=pool_size, direct_url=direct_url, statements=statements)
