"""The other side of `isolation="process"`: a server that has imported agents, and forks a process per attempt.

Run as `python -m pilothouse.engine.isolated FD`: FD is a socket on which the worker says what to import, what to fork
and what to kill. A forked process runs one attempt and talks to the worker on a socket of its own.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import pickle
import random
import resource
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

import orjson

from pilothouse import errors
from pilothouse.clock import SystemClock
from pilothouse.control.attempts import AttemptKey, Checkpoint, ClaimedRun, LogLine, Settlement
from pilothouse.engine import executor, wire
from pilothouse.engine.agent import Agent, make_agent
from pilothouse.engine.attempt import Attempt, OnSettled, Services
from pilothouse.engine.endings import Ended
from pilothouse.engine.loops import calm_collector, new_runner
from pilothouse.engine.threads import Threads
from pilothouse.store.database import Row
from pilothouse.telemetry.events import Emitter, Event, StepExecuted

MAX_MESSAGE = 1 << 20
PR_SET_PDEATHSIG = 1
ERROR_SHOWN = 8_192


# --- the server --------------------------------------------------------------------------------


class ForkServer:
    """One thread, no event loop: what is forked must be a simple process."""

    def __init__(self, control: socket.socket, agents: Mapping[str, Agent]) -> None:
        self._control = control
        self._agents = agents
        self._numbers: dict[int, int] = {}
        self._wake, wake = socket.socketpair()
        self._wake.setblocking(False)
        wake.setblocking(False)
        self._wakeup = wake
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)

    def serve(self) -> None:
        """Until the worker is gone."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(self._wake, selectors.EVENT_READ)
            while self._turn({key.fileobj for key, _ in selector.select()}):
                pass
        for number in tuple(self._numbers.values()):
            self._kill(number)

    def _turn(self, ready: set[Any]) -> bool:
        if self._wake in ready:
            self._wake.recv(4096)
            self._reap()
        if self._control not in ready:
            return True
        text, descriptors, _, _ = socket.recv_fds(self._control, MAX_MESSAGE, 1)
        if not text:
            return False
        order = orjson.loads(text)
        if order["do"] == "fork":
            self._fork(order, socket.socket(fileno=descriptors[0]))
        else:
            self._kill(order["number"])
        return True

    def _fork(self, order: dict[str, Any], connection: socket.socket) -> None:
        sys.stdout.flush()
        process_id = os.fork()
        if process_id == 0:
            self._become_attempt(order, connection)
        connection.close()
        self._numbers[process_id] = order["number"]

    def _become_attempt(self, order: dict[str, Any], connection: socket.socket) -> NoReturn:
        code = 1
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for own in (self._control, self._wake, self._wakeup):
                own.close()
            die_with_parent()
            if order["memory_bytes"]:
                resource.setrlimit(resource.RLIMIT_DATA, (order["memory_bytes"],) * 2)
            random.seed()
            with new_runner() as runner:
                runner.run(live(connection, self._agents[order["agent"]]))
            code = 0
        finally:
            sys.stdout.flush()
            os._exit(code)

    def _kill(self, number: int) -> None:
        """The process and all that it has forked, as far as they stay in its group."""
        for process_id, its_number in self._numbers.items():
            if its_number == number:
                _kill_group(process_id)

    def _reap(self) -> None:
        while self._numbers:
            process_id, status = os.waitpid(-1, os.WNOHANG)
            if process_id == 0:
                return
            _kill_group(process_id)
            number = self._numbers.pop(process_id)
            self._control.send(orjson.dumps({"exited": number, "code": os.waitstatus_to_exitcode(status)}))


def _kill_group(process_id: int) -> None:
    for kill in (os.killpg, os.kill):
        try:
            kill(process_id, signal.SIGKILL)
        except ProcessLookupError:
            continue


def die_with_parent() -> None:
    """Where the kernel offers it, a process does not outlive the one that forked it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    setup = pickle.loads(control.recv(MAX_MESSAGE))  # noqa: S301 - from the worker, which has made this process
    sys.path[:] = setup["path"]
    agents, failed = {}, {}
    for name, agent in setup["agents"].items():
        try:
            agents[name] = make_agent(name, *pickle.loads(agent))  # noqa: S301 - as above
        except BaseException as error:  # noqa: BLE001 - whatever the user's module raises is told to the worker
            failed[name] = "".join(traceback.format_exception(error))[-ERROR_SHOWN:]
    new_runner()  # imports what every forked process would import for itself
    control.send(orjson.dumps({"failed": failed}))
    calm_collector()
    ForkServer(control, agents).serve()


# --- one attempt -------------------------------------------------------------------------------


async def live(connection: socket.socket, agent: Agent) -> None:
    """One attempt, from the frame that starts it to the one that tells how it ended."""
    reader, writer = await asyncio.open_unix_connection(sock=connection)
    start = await wire.receive(reader)
    if start is None:
        return
    link = Link(writer, start)
    services = Services(
        reader=link,
        writer=link,
        threads=Threads("pilothouse-agent"),
        clock=SystemClock(),
        emitter=Emitter([link.see]),
        attempt_timeout_seconds=start["timeout_seconds"],
        isolation=None,
    )
    attempt = await executor.load(wire.claim_from(start["claim"]), agent, services)
    listening = asyncio.get_running_loop().create_task(_listen(reader, link, attempt))
    over: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
    executor.call(attempt, over.set_result)
    ended = await over
    link.tell_end(executor.settle(attempt, ended), ended.delay_seconds)
    await writer.drain()
    listening.cancel()


async def _listen(reader: asyncio.StreamReader, link: Link, attempt: Attempt) -> None:
    while (frame := await wire.receive(reader)) is not None:
        if frame["kind"] == "stop":
            attempt.stop(frame["reason"], frame["note"])
        else:
            link.answer(frame)
    os._exit(1)  # the worker is gone, and with it whoever this attempt could be settled for


class Link:
    """The attempt's reads and writes, carried out by the worker."""

    def __init__(self, writer: asyncio.StreamWriter, start: wire.Frame) -> None:
        self._writer = writer
        self._start = start
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._asked = 0

    def answer(self, frame: wire.Frame) -> None:
        future = self._waiting.pop(frame["id"])
        if future.done():
            return
        if frame.get("error") is None:
            future.set_result(frame.get("value"))
        else:
            future.set_exception(_error_from(**frame["error"]))

    def see(self, event: Event) -> None:
        if isinstance(event, StepExecuted):
            wire.send(self._writer, "step", step=event.step, duration_us=event.duration_us)

    def tell_end(self, settlement: Settlement, delay_seconds: float | None) -> None:
        wire.send(
            self._writer,
            "ended",
            ending=settlement.ending,
            output=settlement.output,
            error=settlement.error,
            reason=settlement.reason,
            failed_steps=settlement.failed_steps,
            delay_seconds=delay_seconds,
            wake_at=settlement.wake_at,
            waits=[(wait.kind, wait.name, wait.group) for wait in settlement.waits],
            steps_executed=settlement.steps_executed,
            steps_replayed=settlement.steps_replayed,
        )

    async def journal(self, _claim: ClaimedRun) -> tuple[list[Row], int]:
        return self._start["checkpoints"], self._start["lines"]

    async def signal(self, _run_id: str, name: str) -> Row | None:
        row: Row | None = await self._ask("signal", name=name)
        return row

    async def children(self, ids: Sequence[str]) -> list[Row]:
        rows: list[Row] = await self._ask("children", ids=list(ids))
        return rows

    async def checkpoint(self, checkpoint: Checkpoint) -> None:
        await self._ask("checkpoint", **wire.checkpoint_fields(checkpoint))

    def settle(self, _settlement: Settlement, _on_settled: OnSettled) -> None:
        raise AssertionError("the worker settles")

    def log(self, line: LogLine) -> None:
        wire.send(self._writer, "log", at=line.at, level=line.level, message=line.message, fields=line.fields)

    def progress(self, _key: AttemptKey, done: int, total: int | None) -> None:
        wire.send(self._writer, "progress", done=done, total=total)

    async def _ask(self, kind: str, **fields: Any) -> Any:
        self._asked += 1
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[self._asked] = future
        wire.send(self._writer, kind, id=self._asked, **fields)
        return await future


def _error_from(type: str, message: str) -> Exception:
    kind = getattr(errors, type, errors.StoreError)
    error: Exception = kind(message)
    return error


if __name__ == "__main__":
    with suppress(BrokenPipeError, ConnectionResetError):  # the worker is gone, and with it the use of this
        main()
