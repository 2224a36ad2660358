"""Agents with `isolation="process"`: each attempt in a process of its own, forked from one that has imported the agent.

The process sees the environment variables that its agent names as `secrets` and a few harmless ones, holds no
connection to the database, and is killed with all that it has forked when its attempt is over.
"""

from __future__ import annotations

import asyncio
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any, get_args

import orjson

from pilothouse import payloads
from pilothouse.config import isolated_environment
from pilothouse.control.attempts import LogLine
from pilothouse.control.calls import ModelCall
from pilothouse.domain.limits import Unit
from pilothouse.domain.runs import Ending
from pilothouse.engine import remote_models, wire
from pilothouse.engine.agent import Agent
from pilothouse.engine.approvals import judge
from pilothouse.engine.attempt import ASKED_KIND, Attempt, Parked
from pilothouse.engine.endings import Ended
from pilothouse.engine.failures import DescribedError
from pilothouse.engine.models import calls_in
from pilothouse.engine.reader import Past
from pilothouse.engine.remote_switches import tell_rule, tell_switches, tell_velocity
from pilothouse.engine.runaways import note_tokens
from pilothouse.engine.switches import EffectGate
from pilothouse.errors import (
    ConfigError,
    FatalError,
    IsolationError,
    LeaseLost,
    LimitReached,
    ModelError,
    Refused,
    StoreError,
    Withheld,
)
from pilothouse.telemetry import tracing

STOP_SECONDS = 2.0
"""How long a handler that is stopped may take to clean up before its process is killed."""

START_SECONDS = 60.0
"""How long importing the agent may take."""

CLOSE_SECONDS = 2.0
MEGABYTE = 1024 * 1024
MAX_MESSAGE = 1 << 20


Secrets = tuple[str, ...]


class Isolation:
    """The fork servers of one worker: one for all the isolated agents that see the same secrets."""

    def __init__(self, agents: Mapping[str, Agent], preload: Sequence[str] = ()) -> None:
        self._preload = tuple(preload)
        self._groups: dict[Secrets, list[Agent]] = {}
        for agent in agents.values():
            if agent.options.isolation == "process":
                self._groups.setdefault(agent.options.secrets, []).append(agent)
        self._servers: dict[Secrets, asyncio.Task[ForkServerHandle]] = {}

    def warm(self) -> None:
        """Starts the servers before the first run comes."""
        for secrets in self._groups:
            self._server_of(secrets)

    def when_ready(self, agent: Agent, then: Callable[[], None]) -> None:
        """Calls `then` once the agent has been imported, or could not be: `run` tells."""
        self._server_of(agent.options.secrets).add_done_callback(lambda _: then())

    async def run(self, attempt: Attempt) -> Ended:
        """The whole attempt in a process of its own; however that ends, the attempt has an ending."""
        try:
            server = await asyncio.shield(self._server_of(attempt.agent.options.secrets))
            server.check_imported(attempt.agent.name)
        except IsolationError as error:
            return Ended("failed", error=error)
        ours, theirs = socket.socketpair()
        with theirs:
            process = server.fork(attempt.agent, theirs)
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        try:
            return await _stoppable(Conversation(attempt, reader, writer), process.exited)
        finally:
            process.kill()
            writer.close()

    async def close(self) -> None:
        """Ends the servers, and with them every process that they have forked."""
        for starting in self._servers.values():
            starting.cancel()
            with suppress(asyncio.CancelledError, IsolationError):
                server = await starting
                server.disconnect()
                await asyncio.to_thread(server.wait)

    def _server_of(self, secrets: Secrets) -> asyncio.Task[ForkServerHandle]:
        starting = self._servers.get(secrets)
        if starting is None or (starting.done() and not _is_serving(starting)):
            starting = asyncio.get_running_loop().create_task(self._start(secrets, starting))
            self._servers[secrets] = starting
        return starting

    async def _start(self, secrets: Secrets, gone: asyncio.Task[ForkServerHandle] | None) -> ForkServerHandle:
        """A server, maybe in the place of one that is gone."""
        if gone is not None and not gone.cancelled() and gone.exception() is None:
            await asyncio.to_thread(gone.result().wait)
        return await start_server(self._groups[secrets], secrets, self._preload)


def _is_serving(starting: asyncio.Task[ForkServerHandle]) -> bool:
    return not starting.cancelled() and starting.exception() is None and not starting.result().is_gone


async def _stoppable(conversation: Conversation, exited: asyncio.Future[int]) -> Ended:
    """Its ending; a stop of the attempt is handed on, and the handler has a moment to clean up."""
    talking = asyncio.ensure_future(conversation.hold())
    either: list[asyncio.Future[Any]] = [talking, exited]
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not talking.done():
            await asyncio.wait([talking], timeout=STOP_SECONDS)  # what it has said last may still be on its way
        return await conversation.ending(talking, exited)
    except asyncio.CancelledError:
        conversation.ask_to_stop()
        await asyncio.wait(either, timeout=STOP_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        raise
    finally:
        talking.cancel()


# --- one attempt -------------------------------------------------------------------------------


class Conversation:
    """The worker's side of one attempt: it carries out what the process asks for, in the name of the attempt alone."""

    def __init__(self, attempt: Attempt, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._attempt = attempt
        self._reader = reader
        self._writer = writer
        self._asked: set[asyncio.Task[None]] = set()
        self._model_calls: dict[str, tuple[ModelCall, ...]] = {}

    async def hold(self) -> Ended | None:
        """How the process says that the attempt ended; None where it does not say."""
        await self._start()
        while (frame := await wire.receive(self._reader)) is not None:
            if frame["kind"] == "ended":
                return self._ended(frame)
            self._hear(frame)
        return None

    async def ending(self, talking: asyncio.Future[Ended | None], exited: asyncio.Future[int]) -> Ended:
        """What the attempt ends as, where its process may have died or said nonsense."""
        try:
            said = talking.result() if talking.done() else None
        except (wire.BrokenFrame, KeyError, TypeError, ValueError) as error:
            return Ended("failed", error=IsolationError(f"the process of this attempt said what nobody knows: {error}"))
        if said is not None:
            return said
        await asyncio.wait([exited], timeout=STOP_SECONDS)
        return Ended("failed", error=IsolationError(_death(exited.result() if exited.done() else None)))

    def ask_to_stop(self) -> None:
        reason = self._attempt.stop_reason or "cancelled"
        wire.send(self._writer, "stop", reason=reason, note=self._attempt.stop_note)

    async def _start(self) -> None:
        attempt = self._attempt
        is_first = attempt.claim.attempt == 1
        past = Past([], 0) if is_first else await attempt.services.reader.journal(attempt.claim)
        attempt.has_asked = any(row["kind"] == ASKED_KIND for row in past.checkpoints)
        limits = attempt.services.around.run_limits
        if limits is not None:
            await limits.look(anew=not is_first)
        calls = None if limits is None else limits.of(attempt.claim.run_id, attempt.claim.agent, Unit.CALLS)
        wire.send(
            self._writer,
            "start",
            claim=tuple(attempt.claim),
            checkpoints=past.checkpoints,
            lines=past.lines,
            timeout_seconds=attempt.services.attempt_timeout_seconds,
            runaway_rule=tell_rule(attempt),
            calls=calls,
            trace_share=attempt.services.around.trace_share,
            wants_content=attempt.services.emitter.wants_content,
        )

    def _hear(self, frame: wire.Frame) -> None:
        attempt, claim = self._attempt, self._attempt.claim
        match frame["kind"]:
            case (
                "checkpoint"
                | "signal"
                | "children"
                | "memory"
                | "model"
                | "approval"
                | "verdict"
                | "switches"
                | "velocity"
            ):
                task = asyncio.ensure_future(self._carry_out(frame))
                self._asked.add(task)
                task.add_done_callback(self._asked.discard)
            case "log":
                line = (frame[name] for name in ("at", "level", "message", "fields"))
                attempt.services.writer.log(LogLine(claim.run_id, claim.attempt, *line))
            case "progress":
                attempt.services.writer.progress(claim.key, frame["done"], frame["total"])
            case "event":
                attempt.services.emitter.emit(wire.event_from(frame, claim))
            case kind:
                raise wire.BrokenFrame(f"a frame of kind {kind[:50]!r}")

    async def _carry_out(self, frame: wire.Frame) -> None:
        try:
            value = await self._do(frame)
        except (LeaseLost, LimitReached, Refused, StoreError, KeyError, TypeError, ValueError) as error:
            reached = asdict(error.reached) if isinstance(error, LimitReached) else None
            told = {"type": type(error).__name__, "message": str(error), "reached": reached}
            wire.send(self._writer, "answer", id=frame["id"], error=told)
        else:
            wire.send(self._writer, "answer", id=frame["id"], value=value)

    async def _do(self, frame: wire.Frame) -> object:
        services, claim = self._attempt.services, self._attempt.claim
        match frame["kind"]:
            case "checkpoint":
                models = self._model_calls.pop(frame["checkpoint"]["key"], ())
                checkpoint = wire.checkpoint_from(frame, claim, models, services.around.channels)
                self._attempt.has_asked |= bool(checkpoint.asks)
                await services.writer.checkpoint(checkpoint)
                return None
            case "memory":
                return await services.reader.memory(claim.run_id, frame["name"])
            case "model":
                return await self._ask_model(frame)
            case "switches" | "velocity":
                attempt = self._attempt
                return await (tell_switches(attempt) if frame["kind"] == "switches" else tell_velocity(attempt))
            case "signal":
                return await services.reader.signal(claim.run_id, frame["name"])
            case "approval":
                return await services.reader.approval(claim.run_id, frame["id_asked"])
            case "verdict":
                return await self._judge(frame)
            case _:
                rows = await services.reader.children(frame["ids"])
                return [row for row in rows if row["parent_id"] == claim.run_id]

    async def _judge(self, frame: wire.Frame) -> object:
        """The worker's policies speak of what the process is about to do, in the name of its own run."""
        proposal = wire.proposal_from(frame["proposal"], self._attempt.claim)
        return wire.verdict_fields(await judge(self._attempt, proposal, frame["confidence"]))

    async def _ask_model(self, frame: wire.Frame) -> object:
        """Asks for the process, which has no keys; what it cost is written with the step, whatever the process says."""
        claim, models = self._attempt.claim, self._attempt.services.around.models
        tracing.enter(claim, self._attempt.services.around.trace_share)
        if models is None:
            return remote_models.NO_MODELS
        prompt = remote_models.prompt_from(frame["prompt"], claim)
        try:
            answer = await models.answer(replace(prompt, may_go_out=EffectGate(self._attempt).open))
        except Withheld as error:
            return {"withheld": str(error)}
        except LimitReached as error:  # asked again once there is room, so that what was refused is no record yet
            return remote_models.describe_failure(error)
        except (ModelError, FatalError, ConfigError) as error:
            self._note_calls(prompt.asker.step, calls_in(error))
            return remote_models.describe_failure(error)
        self._note_calls(prompt.asker.step, answer.calls)
        return remote_models.describe_answer(answer)

    def _note_calls(self, step: str, calls: Sequence[ModelCall]) -> None:
        self._model_calls[step] = (*self._model_calls.get(step, ()), *calls)
        for call in calls:
            note_tokens(self._attempt, call)

    def _ended(self, frame: wire.Frame) -> Ended:
        """The worker decides where the run goes from here; the process says only how its handler ended."""
        attempt, ending = self._attempt, frame["ending"]
        if ending not in get_args(Ending):
            raise wire.BrokenFrame(f"the ending {ending!r}")
        if ending == "suspended":
            attempt.parked = [Parked(wire.waits_from(frame["waits"]), frame["wake_at"], frame["reason"])]
        if ending == "lost":
            attempt.stop_reason = "lost"
        attempt.journal.executed, attempt.journal.replayed = frame["steps_executed"], frame["steps_replayed"]
        output, error = frame["output"], frame["error"]
        return Ended(
            ending,
            output=None if output is None else payloads.encode(payloads.decode(output)),
            error=None if error is None else DescribedError(payloads.decode(error), tuple(frame["failed_steps"])),
            reason=frame["reason"],
            delay_seconds=frame["delay_seconds"],
        )


def _death(code: int | None) -> str:
    if code is None:
        return "the process of this attempt went silent"
    if code < 0:
        return f"the process of this attempt was killed by signal {-code}; if nobody did, the machine ran out of memory"
    return f"the process of this attempt ended with exit code {code} before its handler returned"


# --- the server --------------------------------------------------------------------------------


class ForkedProcess:
    """One process; `exited` has its exit code once it is gone, negative for a signal."""

    def __init__(self, server: ForkServerHandle, number: int) -> None:
        self._server = server
        self._number = number
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def kill(self) -> None:
        if not self.exited.done():
            self._server.order({"do": "kill", "number": self._number})


class ForkServerHandle:
    """The worker's hold on a fork server."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self._process = process
        self._control = control
        self._loop = asyncio.get_running_loop()
        self._forked: dict[int, ForkedProcess] = {}
        self._count = 0
        self.is_gone = False
        self._failed: dict[str, str] = {}
        self.started: asyncio.Future[None] = self._loop.create_future()
        control.setblocking(False)
        self._loop.add_reader(control, self._hear)

    def check_imported(self, name: str) -> None:
        """Raises IsolationError with what importing the agent has raised."""
        if name in self._failed:
            raise IsolationError(f"agent {name!r} cannot be imported in its process:\n{self._failed[name]}")

    def fork(self, agent: Agent, connection: socket.socket) -> ForkedProcess:
        """A process that runs one attempt of `agent` and talks on `connection`."""
        self._count += 1
        process = self._forked[self._count] = ForkedProcess(self, self._count)
        memory_bytes = (agent.options.memory_mb or 0) * MEGABYTE
        order = {"do": "fork", "number": self._count, "agent": agent.name, "memory_bytes": memory_bytes}
        try:
            socket.send_fds(self._control, [orjson.dumps(order)], [connection.fileno()])
        except OSError:
            self.disconnect()
        return process

    def order(self, what: dict[str, Any]) -> None:
        try:
            self._control.send(orjson.dumps(what))
        except OSError:
            self.disconnect()

    def wait(self) -> None:
        """Blocks until the process is gone, which the end of the connection tells it."""
        try:
            self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _hear(self) -> None:
        try:
            text = self._control.recv(MAX_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            text = b""
        if not text:
            self.disconnect()
            return
        news = orjson.loads(text)
        if "exited" in news:
            process = self._forked.pop(news["exited"])
            process.exited.set_result(news["code"])
        else:
            self._failed = news["failed"]
            self.started.set_result(None)

    def disconnect(self) -> None:
        """The server ends without its worker, and with it all that it has forked."""
        if self.is_gone:
            return
        self.is_gone = True
        self._loop.remove_reader(self._control)
        self._control.close()
        for process in self._forked.values():
            process.exited.set_result(-9)
        self._forked.clear()
        if not self.started.done():
            self.started.set_exception(IsolationError("the process of isolated agents ended while it was started"))


async def start_server(agents: Sequence[Agent], secrets: Secrets, preload: Sequence[str]) -> ForkServerHandle:
    """A server that has imported `preload` and the agents, as far as they can be. Raises IsolationError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = await asyncio.to_thread(_spawn, theirs, isolated_environment(secrets))
    server = ForkServerHandle(process, ours)
    setup = {
        "path": sys.path,
        "agents": {agent.name: pickled(agent) for agent in agents},
        "tools": list(_pickled_tools(agents)),
        "preload": preload,
    }
    ours.send(pickle.dumps(setup))
    try:
        async with asyncio.timeout(START_SECONDS):
            await server.started
    except BaseException as error:
        server.disconnect()
        await asyncio.to_thread(server.wait)
        if isinstance(error, TimeoutError):
            raise IsolationError(f"the process of isolated agents was not ready within {START_SECONDS:.0f} s") from None
        raise
    return server


def _spawn(control: socket.socket, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pilothouse.engine.isolated", str(control.fileno())]
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        pass_fds=[control.fileno()],
        start_new_session=True,  # Ctrl-C is for the worker, which lets its attempts finish
    )


def _pickled_tools(agents: Sequence[Agent]) -> Iterator[bytes]:
    """The tools that can be found by their functions' names; the others are there only for those who hold them."""
    tools = {tool.name: tool for agent in agents for tool in agent.toolbox}
    for tool in tools.values():
        with suppress(pickle.PicklingError, AttributeError, TypeError):
            yield pickle.dumps((tool.function, tool.name, tool.options))


def pickled(agent: Agent) -> bytes:
    """The handler by its name and module, and its options. Raises ConfigError where they cannot be found by name."""
    try:
        return pickle.dumps((agent.handler, agent.options))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"agent {agent.name!r}: isolation='process' needs a function at the top of a module that can be imported: "
            f"{error}"
        ) from error


def check_isolated(agents: Mapping[str, Agent]) -> None:
    """Raises ConfigError for an isolated agent that no other process could import, or where no process can be had."""
    for agent in agents.values():
        if agent.options.isolation == "process":
            if sys.platform != "linux":
                raise ConfigError(f"agent {agent.name!r}: isolation='process' needs Linux, this is {sys.platform}")
            pickled(agent)
