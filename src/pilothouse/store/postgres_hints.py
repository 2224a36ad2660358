"""Hints between processes over LISTEN and NOTIFY: one connection listens, one notifies. A NOTIFY makes its commit wait
for all others, so hints are sent apart from the transactions, and each topic at most once per window.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import psycopg

from pilothouse.clock import SystemClock
from pilothouse.errors import StoreError
from pilothouse.store.calls import Hints

CHANNEL = "pilothouse"
WINDOW_SECONDS = 0.005
MAX_TOPICS = 1000
FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 0.1, 5.0

Connect: TypeAlias = Callable[[], psycopg.Connection[Any]]
_log = logging.getLogger(__name__)
_time = SystemClock()


class Listener:
    """A thread that passes the server's notifications to the hints, and "*" whenever it may have missed some."""

    def __init__(self, connect: Connect, hints: Hints) -> None:
        self._connect, self._hints = connect, hints
        self._stopped = threading.Event()
        self._wake_reader, self._wake_writer = os.pipe()
        self._thread = threading.Thread(target=self._run, name="pilothouse-listen", daemon=True)
        self._thread.start()

    def stop(self, timeout_seconds: float) -> None:
        self._stopped.set()
        os.write(self._wake_writer, b"!")
        self._thread.join(timeout_seconds)
        if not self._thread.is_alive():
            os.close(self._wake_reader)
            os.close(self._wake_writer)

    def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._stopped.is_set():
            try:
                with self._connect() as connection:
                    connection.execute(f"LISTEN {CHANNEL}")
                    self._hints.tell("*")
                    pause = FIRST_PAUSE_SECONDS
                    self._pass_on(connection)
            except (StoreError, psycopg.Error) as error:
                _log.info("hints are late until PostgreSQL is back, next try in %.1f s: %s", pause, error)
                self._stopped.wait(pause)
                pause = min(pause * 2, LAST_PAUSE_SECONDS)

    def _pass_on(self, connection: psycopg.Connection[Any]) -> None:
        poll = select.poll()
        poll.register(connection.pgconn.socket, select.POLLIN)
        poll.register(self._wake_reader, select.POLLIN)
        while not self._stopped.is_set():
            while notification := connection.pgconn.notifies():
                self._hints.tell(notification.extra.decode())
            poll.poll()
            connection.pgconn.consume_input()


class Notifier:
    """A thread that sends the topics it is given: at once, or at the end of the window since it last sent the topic."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._connection: psycopg.Connection[Any] | None = None
        self._due: dict[str, float] = {}
        self._sent: dict[str, float] = {}
        self._changed = threading.Condition()
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run, name="pilothouse-notify", daemon=True)
        self._thread.start()

    def add(self, topic: str) -> None:
        with self._changed:
            if len(self._due) >= MAX_TOPICS:
                topic = "*"
            if topic not in self._due:
                self._due[topic] = max(_time.monotonic(), self._sent.get(topic, 0.0) + WINDOW_SECONDS)
                self._changed.notify()

    def stop(self, timeout_seconds: float) -> None:
        """Sends what is due before it ends."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify()
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while topics := self._next_topics():
            try:
                self._send(topics)
            except (StoreError, psycopg.Error) as error:
                _log.info("hints for %d topics are lost, their readers poll: %s", len(topics), error)
                self._disconnect()
                time.sleep(FIRST_PAUSE_SECONDS)  # what comes meanwhile is sent together
        self._disconnect()

    def _next_topics(self) -> list[str]:
        """Waits until some topics are due and takes them; none once it is stopped and everything was sent."""
        with self._changed:
            while not self._is_stopped:
                now = _time.monotonic()
                if any(due <= now for due in self._due.values()):
                    return self._take(now)
                self._changed.wait(min(self._due.values()) - now if self._due else None)
            return self._take(float("inf"))

    def _take(self, now: float) -> list[str]:
        topics = [topic for topic, due in self._due.items() if due <= now]
        self._sent = {topic: sent for topic, sent in self._sent.items() if sent + WINDOW_SECONDS > now}
        for topic in topics:
            del self._due[topic]
            self._sent[topic] = now
        return topics

    def _send(self, topics: list[str]) -> None:
        if self._connection is None:
            self._connection = self._connect()
        self._connection.execute("SELECT pg_notify(%s, topic) FROM unnest(%s::text[]) AS topic", [CHANNEL, topics])

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
