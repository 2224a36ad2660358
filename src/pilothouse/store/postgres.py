"""PostgreSQL: works run in threads, each transaction alone on a connection. Deadlocks and lost connections are run
again; a commit whose answer was lost is looked up, so that a work takes place exactly once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from importlib.resources.abc import Traversable
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

from pilothouse.clock import Clock, SystemClock
from pilothouse.errors import ConfigError, StoreUnavailable
from pilothouse.store.calls import Answer, AwaitedCall, BlockingCall, Call, CallQueue, Hints, Order, answer_all
from pilothouse.store.database import PoolUse, T, Work
from pilothouse.store.postgres_connection import connect
from pilothouse.store.postgres_hints import Listener, Notifier
from pilothouse.store.postgres_runner import Outage, Runner, Target
from pilothouse.store.statements import SqlTexts, load_statements

MAX_WAITING = 10_000
MAX_BLOCKING = 4
CLOSE_SECONDS = 10.0
PLANNING = "-c jit=off -c plan_cache_mode=force_generic_plan"
"""The planner cannot know that a walk along an index is short: it would compile the claim anew for each connection, and
plan it anew for each claim, which takes longer than the claim. A pooler refuses options; there the role is set so.
"""

_DEFAULTS = {
    "connect_timeout": "5",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "fallback_application_name": "pilothouse",
    "client_encoding": "UTF8",
}
_time = SystemClock()


class PostgresDatabase:
    """The Database of one PostgreSQL database. Connections are opened as they are needed and kept.

    At most `pool_size` for transactions, half as many for reads, a few for blocking calls, two for hints.
    """

    dialect = "postgres"

    def __init__(
        self,
        url: str,
        clock: Clock,
        *,
        pool_size: int = 8,
        direct_url: str | None = None,
        statements: Traversable | None = None,
    ) -> None:
        self.url, self.clock = url, clock
        self._target = parse_target(url)
        self._direct = parse_target(direct_url) if direct_url else self._target
        self._statements = load_statements("postgres", statements, bind_now=clock.frozen)
        self._texts = SqlTexts("postgres", bind_now=clock.frozen)
        self._writes = CallQueue(f"PostgreSQL at {self._target.location}", limit=MAX_WAITING)
        self._reads = CallQueue(f"PostgreSQL at {self._target.location}", limit=MAX_WAITING)
        self._sizes = {self._writes: pool_size, self._reads: max(1, pool_size // 2)}
        self._blocking = threading.BoundedSemaphore(MAX_BLOCKING)
        self._outage = Outage()
        self._idle: list[Runner] = []  # last in, first out: few connections stay warm
        self._threads: list[threading.Thread] = []
        self._hints = Hints()
        self._listener: Listener | None = None
        self._notifier: Notifier | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Raises StoreUnavailable or SchemaError for a server that is not there or too old."""
        with self._lock:
            if self._threads:
                return
            runner = self._new_runner()
            runner.connect()
            self._idle.append(runner)
            for queue, size in self._sizes.items():
                queue.open()
                self._threads += [self._start_thread(queue, number) for number in range(size)]
            self._start_listener()

    def close(self) -> None:
        """Runs what is queued, as far as the server answers within some seconds, and closes all connections."""
        with self._lock:
            if not self._threads:
                return
            deadline = _time.monotonic() + CLOSE_SECONDS
            for queue, size in self._sizes.items():
                queue.close(size)
            for thread in self._threads:
                thread.join(max(0.0, deadline - _time.monotonic()))
            self._reads.reject_rest()
            self._writes.reject_rest()
            self._stop_hints()
            self._threads = []
            self._disconnect_idle()

    async def transaction(self, work: Work[T], *, is_patient: bool = False) -> T:
        call = AwaitedCall(work, is_patient=is_patient)
        self._writes.put(call)
        result: T = await call.future
        return result

    async def read(self, work: Work[T]) -> T:
        call = AwaitedCall(work)
        self._reads.put(call)
        result: T = await call.future
        return result

    def transaction_blocking(self, work: Work[T]) -> T:
        return self._run_here(work, is_read=False)

    def read_blocking(self, work: Work[T]) -> T:
        return self._run_here(work, is_read=True)

    def administer(self, work: Work[T]) -> T:
        return self._run_directly(work, is_read=False)

    def examine(self, work: Work[T]) -> T:
        return self._run_directly(work, is_read=True)

    def _run_directly(self, work: Work[T], *, is_read: bool) -> T:
        runner = self._new_runner(self._direct)
        try:
            result: T = _value(runner.run(BlockingCall(work, is_raw=True), is_read=is_read))
            return result
        finally:
            runner.disconnect()

    def pool_use(self) -> PoolUse:
        queues = self._sizes.keys()
        waiting = sum(queue.waiting for queue in queues)
        return PoolUse(sum(self._sizes.values()), sum(queue.busy for queue in queues), waiting)

    def check(self) -> None:
        self._run_here(lambda tx: tx.fetch_all("SELECT 1"), is_read=True, is_raw=True)

    def notify(self, topic: str) -> None:
        self._hints.tell(topic)
        if self._notifier is None:
            self._start_notifier()
        if self._notifier is not None:
            self._notifier.add(topic)

    def listen(self, callback: Callable[[str], None]) -> Callable[[], None]:
        stop = self._hints.add(callback)
        with self._lock:
            self._start_listener()
        return stop

    def _start_listener(self) -> None:
        if self._listener is None and self._threads and self._hints.are_wanted:
            self._listener = Listener(self._connect_direct, self._hints)

    def _start_notifier(self) -> None:
        with self._lock:
            if self._notifier is None and self._threads:
                self._notifier = Notifier(self._connect_direct)

    def _stop_hints(self) -> None:
        for thread in (self._notifier, self._listener):
            if thread is not None:
                thread.stop(CLOSE_SECONDS)
        self._notifier = self._listener = None

    def _connect_direct(self) -> psycopg.Connection[Any]:
        return connect(self._direct.parameters, self._direct.location)

    def _start_thread(self, queue: CallQueue, number: int) -> threading.Thread:
        is_read = queue is self._reads
        name = f"pilothouse-{'read' if is_read else 'write'}-{number}"
        thread = threading.Thread(target=self._serve, args=(queue, is_read), name=name, daemon=True)
        thread.start()
        return thread

    def _serve(self, queue: CallQueue, is_read: bool) -> None:
        while (item := queue.take()) is not Order.END:
            if not isinstance(item, Order) and not item.is_abandoned:
                answer_all([item], [self._run(item, is_read=is_read)])

    def _run_here(self, work: Work[T], *, is_read: bool, is_raw: bool = False) -> T:
        if not self._threads:
            raise StoreUnavailable(f"PostgreSQL at {self._target.location} is not open; call start() before")
        with self._blocking:
            result: T = _value(self._run(BlockingCall(work, is_raw=is_raw), is_read=is_read))
        return result

    def _run(self, call: Call, *, is_read: bool) -> Answer:
        try:
            runner = self._idle.pop()
        except IndexError:
            runner = self._new_runner()
        answer = runner.run(call, is_read=is_read)
        self._idle.append(runner)
        if not self._threads:  # closed meanwhile, by somebody who did not wait for this call
            self._disconnect_idle()
        return answer

    def _disconnect_idle(self) -> None:
        while self._idle:
            with suppress(IndexError):  # another thread may take the last one
                self._idle.pop().disconnect()

    def _new_runner(self, target: Target | None = None) -> Runner:
        return Runner(
            target or self._target, self._outage, statements=self._statements, texts=self._texts, clock=self.clock
        )


def parse_target(url: str) -> Target:
    """Raises ConfigError for a URL that cannot be read, without showing it, for it may hold a password."""
    try:
        given, is_pooled = _read_url(url)
    except (ValueError, psycopg.ProgrammingError) as error:
        raise ConfigError(
            "the PostgreSQL URL cannot be read; write postgresql://user:password@host:5432/database, "
            "with the special characters of the password percent-encoded"
        ) from error
    location = (
        f"{given.get('host', 'localhost')}:{given.get('port', '5432')}/{given.get('dbname', given.get('user', ''))}"
    )
    own = {} if is_pooled else {"options": f"{given.get('options', '')} {PLANNING}".strip()}
    return Target({**_DEFAULTS, **given, **own}, location, is_pooled)


def _read_url(url: str) -> tuple[dict[str, Any], bool]:
    parts = urlsplit(url)
    if parts.netloc.count("@") > 1 or "@" in f"{parts.path}{parts.query}{parts.fragment}":
        raise ValueError("an @ is part of the password")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    is_pooled = options.pop("pgbouncer", "false").lower() in ("true", "1", "yes")
    return conninfo_to_dict(parts._replace(query=urlencode(options)).geturl()), is_pooled


def _value(answer: Answer) -> Any:
    if answer.error is not None:
        raise answer.error
    return answer.value
