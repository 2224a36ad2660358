"""The lease of a worker, renewed from a thread of its own: agent code that holds up the event loop cannot cost it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from pilothouse.control import workers
from pilothouse.errors import StoreError
from pilothouse.store.database import Database, Transaction


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """How long a lease lasts, and how often it is renewed. A lease survives several renewals that fail."""

    lease_us: int
    renew_seconds: float


class LeaseKeeper:
    """Renews one worker's lease until it is stopped. The callbacks are called from its thread."""

    def __init__(
        self,
        db: Database,
        worker_id: str,
        terms: LeaseTerms,
        *,
        on_lost: Callable[[], None],
        on_draining: Callable[[], None],
        on_renewed: Callable[[], None] = lambda: None,
    ) -> None:
        self._db = db
        self._worker_id = worker_id
        self._terms = terms
        self._on_lost = on_lost
        self._on_draining = on_draining
        self._on_renewed = on_renewed
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pilothouse-lease", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.wait(self._terms.renew_seconds):
            try:
                state = self._db.transaction_blocking(self.renew)
            except StoreError:
                continue  # the pump tells that the database is away; the lease is tried again at the next beat
            if self._stopping.is_set() or not self.take_note(state):
                return

    def renew(self, tx: Transaction) -> str | None:
        """One beat; the worker's state, or None where its lease was reaped."""
        return workers.renew(tx, self._worker_id, lease_us=self._terms.lease_us)

    def take_note(self, state: str | None) -> bool:
        """Tells the worker what a beat found; False where there is nothing left to renew."""
        if state is None:
            self._on_lost()
            return False
        if state == "draining":
            self._on_draining()
        self._on_renewed()
        return True
