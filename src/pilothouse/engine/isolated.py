"""The other side of `isolation="process"`: a server that has imported agents, and forks a process per attempt.

Run as `python -m pilothouse.engine.isolated FD`: FD is a socket on which the worker says what to import, what to fork
and what to kill. A forked process runs one attempt and talks to the worker on a socket of its own.
"""

from __future__ import annotations

import asyncio
import importlib
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
from pilothouse.domain.limits import Unit
from pilothouse.domain.policies import Proposal, Verdict
from pilothouse.domain.runaways import RunawayRule
from pilothouse.engine import executor, wire
from pilothouse.engine.agent import Agent, make_agent
from pilothouse.engine.attempt import Attempt, OnSettled, Services, Surroundings
from pilothouse.engine.endings import Ended
from pilothouse.engine.loops import calm_collector, new_runner
from pilothouse.engine.processes import die_with_parent, kill_group
from pilothouse.engine.reader import Past
from pilothouse.engine.remote_models import RemoteModels
from pilothouse.engine.remote_switches import RemoteRunaways, RemoteSwitches
from pilothouse.engine.secrets import ProcessSecrets
from pilothouse.engine.threads import Threads
from pilothouse.engine.tools import Toolbox, make_tool
from pilothouse.store.database import Row
from pilothouse.telemetry.event import Event
from pilothouse.telemetry.events import Emitter

MAX_MESSAGE = 1 << 20
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
                kill_group(process_id)

    def _reap(self) -> None:
        while self._numbers:
            process_id, status = os.waitpid(-1, os.WNOHANG)
            if process_id == 0:
                return
            kill_group(process_id)
            number = self._numbers.pop(process_id)
            self._control.send(orjson.dumps({"exited": number, "code": os.waitstatus_to_exitcode(status)}))


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    setup = pickle.loads(control.recv(MAX_MESSAGE))  # noqa: S301 - from the worker, which has made this process
    sys.path[:] = setup["path"]
    agents, failed = {}, {}
    for module in setup["preload"]:
        importlib.import_module(module)
    toolbox = Toolbox()
    for tool in setup["tools"]:
        toolbox.add(make_tool(*pickle.loads(tool)))  # noqa: S301 - as above
    for name, agent in setup["agents"].items():
        try:
            handler, options = pickle.loads(agent)  # noqa: S301 - as above
            agents[name] = make_agent(name, handler, options, toolbox)
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
        emitter=Emitter([link.see], wants_content=start["wants_content"]),
        attempt_timeout_seconds=start["timeout_seconds"],
        isolation=None,
        around=_around(link, start),
    )
    attempt = await executor.load(wire.claim_from(start["claim"]), agent, services)
    listening = asyncio.get_running_loop().create_task(_listen(reader, link, attempt))
    over: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
    executor.call(attempt, over.set_result)
    ended = await over
    link.tell_end(executor.settle(attempt, ended), ended.delay_seconds)
    await writer.drain()
    listening.cancel()


def _around(link: Link, start: wire.Frame) -> Surroundings:
    runaways = None if start["runaway_rule"] is None else RemoteRunaways(link.ask, RunawayRule(**start["runaway_rule"]))
    return Surroundings(
        RemoteModels(link.ask),
        ProcessSecrets(),
        trace_share=start["trace_share"],
        run_limits=ToldLimits(*start["calls"] or (None, 0)),
        policies=link,
        switches=RemoteSwitches(link.ask),
        runaways=runaways,
    )


class ToldLimits:
    """The limit on calls of tools as it stood when the attempt began; how long it works is the worker's to see."""

    def __init__(self, calls: int | None, epoch: int) -> None:
        self._calls = calls
        self._epoch = epoch

    async def look(self, *, anew: bool = False) -> None:
        """Nothing new is told: a run that was granted more goes on in another attempt."""

    def of(self, _run_id: str, _agent: str, unit: Unit) -> tuple[int | None, int]:
        return (self._calls if unit == Unit.CALLS else None), self._epoch


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
        if event.name in wire.TOLD:
            wire.send(self._writer, "event", name=event.name, fields=wire.event_fields(event))

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

    async def journal(self, _claim: ClaimedRun) -> Past:
        return Past(self._start["checkpoints"], self._start["lines"])

    async def signal(self, _run_id: str, name: str) -> Row | None:
        row: Row | None = await self.ask("signal", name=name)
        return row

    async def memory(self, _run_id: str, name: str) -> Row | None:
        row: Row | None = await self.ask("memory", name=name)
        return row

    async def approval(self, _run_id: str, approval_id: str) -> Row | None:
        row: Row | None = await self.ask("approval", id_asked=approval_id)
        return row

    async def verdict(self, proposal: Proposal, confidence: float | None, run_id: str | None = None) -> Verdict:
        said = await self.ask("verdict", proposal=wire.proposal_fields(proposal), confidence=confidence)
        return wire.verdict_from(said)

    async def children(self, ids: Sequence[str]) -> list[Row]:
        rows: list[Row] = await self.ask("children", ids=list(ids))
        return rows

    async def checkpoint(self, checkpoint: Checkpoint) -> None:
        await self.ask("checkpoint", **wire.checkpoint_fields(checkpoint))

    def settle(self, _settlement: Settlement, _on_settled: OnSettled) -> None:
        raise AssertionError("the worker settles")

    def log(self, line: LogLine) -> None:
        wire.send(self._writer, "log", at=line.at, level=line.level, message=line.message, fields=line.fields)

    def progress(self, _key: AttemptKey, done: int, total: int | None) -> None:
        wire.send(self._writer, "progress", done=done, total=total)

    async def ask(self, kind: str, **fields: Any) -> Any:
        self._asked += 1
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[self._asked] = future
        wire.send(self._writer, kind, id=self._asked, **fields)
        return await future


def _error_from(type: str, message: str, reached: wire.Frame | None = None) -> Exception:
    if reached is not None:
        return errors.LimitReached(message, errors.ReachedLimit(**reached))
    kind = getattr(errors, type, errors.StoreError)
    error: Exception = kind(message)
    return error


if __name__ == "__main__":
    with suppress(BrokenPipeError, ConnectionResetError):  # the worker is gone, and with it the use of this
        main()
