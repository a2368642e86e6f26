"""One attempt from its start to its journaled end: call the method, watch the clock, stop the tree, close the log."""

import asyncio
import shutil
import sqlite3
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import structlog

from proctor_agent.attempt import Outcome, ProcessGroup, Workbench
from proctor_agent.attempts.context import AgentContext
from proctor_agent.attempts.debts import describe_left
from proctor_agent.attempts.output import fit, shorten
from proctor_agent.log.redact import Redactor
from proctor_agent.log.shipping import LogShip
from proctor_common.messages.events import AttemptRef, MethodError, StepFinished
from proctor_common.messages.orders import StartOrder
from proctor_common.states import Source, StepResult

log = structlog.get_logger(__name__)

MAX_REASON = 2000
MAX_ERROR_DATA = 16 * 1024
BRING_DOWN = 14.0
"""Seconds beyond the grace that all of it may take."""
LAST_WORDS = 2.0
"""Seconds that a method gets to return after its commands are gone, before its task is cancelled."""
STUCK = 3.0
"""Seconds that a cancelled method gets to end, before it is left behind."""


@dataclass(slots=True)
class _StopAsked:
    result: StepResult
    reason: str
    grace_s: float


class Execution:
    """A running attempt; what a method's Context stands on (the protocol ``Attempt``)."""

    def __init__(self, order: StartOrder, ship: LogShip, redactor: Redactor, context: AgentContext) -> None:
        loop = asyncio.get_running_loop()
        self.order = order
        self.ref = AttemptRef(step=order.step, attempt=order.attempt, token=order.token)
        self.stopping = asyncio.Event()
        self.deadline = loop.time() + order.timeout_s
        self._ship = ship
        self._redactor = redactor
        self._journal = context.journal
        self._workbench = context.workbench
        self._default_target = context.default_target
        self._folder = context.folder
        self._asked: _StopAsked | None = None
        self._method: asyncio.Task[Outcome] | None = None
        self._targets: set[str] = set()
        self._lost: set[str] = set()
        self._groups: list[ProcessGroup] = []
        """Those of commands whose ends are not known, with the boot that they belong to."""
        self._unsettled: dict[str, list[ProcessGroup]] = {}
        self._left: dict[str, list[str]] = {}
        """What could not be ended, by target."""
        self._debts = context.debts

    # -- the protocol Attempt -------------------------------------------------------------------------------------

    @property
    def marker(self) -> str:
        return f"{self.order.step}.{self.order.attempt}"

    @property
    def run(self) -> str:
        return self.order.run

    @property
    def target(self) -> str | None:
        return self.order.target

    @property
    def env(self) -> Mapping[str, str]:
        return self.order.env

    def hides(self, text: str) -> bool:
        return self._redactor.text(text) != text

    @property
    def scratch(self) -> Path:
        folder = self._folder / self.marker
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    async def write(self, source: Source, data: bytes) -> None:
        await self._ship.write(source, data)

    async def group_started(self, group: ProcessGroup) -> None:
        self._targets.add(group.target)
        self._groups.append(group)
        self._journal.group_started(self.order.step, self.order.attempt, group)

    def connection_lost(self, target: str) -> None:
        self._lost.add(target)

    async def group_ended(self, group: ProcessGroup) -> None:
        if group in self._groups:
            self._groups.remove(group)
        self._journal.group_ended(self.order.step, self.order.attempt, group)

    # -- its life -------------------------------------------------------------------------------------------------

    def stop(self, result: StepResult, reason: str, grace_s: float) -> None:
        """Ask for the end; the first to ask decides what it is called. A method that has ended has its own end."""
        ended = self._method is not None and self._method.done()
        if self._asked is None and not ended:
            self._asked = _StopAsked(result, reason, grace_s)
            self.stopping.set()

    async def live(self, started_at: datetime) -> StepFinished:
        """Run the method to its end, or to the end it is brought to; the end, without its time."""
        loop = asyncio.get_running_loop()
        order = self.order
        timer = loop.call_at(
            self.deadline,
            lambda: self.stop(StepResult.TIMED_OUT, f"timed out after {order.timeout_s:g} s", order.grace_s),
        )
        tree_gone = None
        try:
            if self._asked is None:
                await self._run_method()
            if self._asked is not None:
                self._ship.say(f"proctor: stopping: {self._asked.reason}")
                tree_gone = await self._bring_down(self._asked.grace_s)
                outcome = self._stopped_outcome(self._asked)
            else:
                outcome = self._own_outcome()
                tree_gone = await self._make_up() if self._lost else None
        finally:
            timer.cancel()
            if self._method is not None:
                self._method.cancel()
        if (self._folder / self.marker).exists():
            await asyncio.to_thread(shutil.rmtree, self._folder / self.marker, ignore_errors=True)
        return await self._end(outcome, started_at, tree_gone)

    async def give_up(self, started_at: datetime, fault: Exception) -> StepFinished:
        """The end of an attempt that this agent itself has spoiled."""
        text = self._redactor.text("".join(traceback.format_exception(fault)))
        log.error("attempt_spoiled", attempt=self.marker, trace=text)
        self._ship.say("proctor: a fault of the agent ends this step; its log says which")
        return await self._end(_error("agent_fault", f"{type(fault).__name__}: {_said(fault)}"), started_at, None)

    async def _end(self, outcome: Outcome, started_at: datetime, tree_gone: bool | None) -> StepFinished:
        order = self.order
        for target, groups in self._unsettled.items():
            self._debts.owe(order.run, self.marker, target, groups, self._left.get(target))
        reason = "; ".join(filter(None, (outcome.reason, self._tell_left())))
        totals = await self._ship.finish()
        return StepFinished(
            run=order.run,
            step=order.step,
            attempt=order.attempt,
            token=order.token,
            result=outcome.result,
            reason=shorten(self._redactor.extract(reason), MAX_REASON),
            exit_code=outcome.exit_code,
            output=fit(self._redactor.document(outcome.output)),
            error=self._masked(outcome.error),
            started_at=started_at,
            chunks=totals.chunks,
            lines=totals.lines,
            bytes=totals.bytes,
            tree_gone=tree_gone,
        )

    async def _run_method(self) -> None:
        """Let the method run until it ends or its end is asked for."""
        self._method = asyncio.create_task(self._call(), name=f"method {self.marker}")
        stopping = asyncio.create_task(self.stopping.wait())
        try:
            await asyncio.wait({self._method, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()

    def _stopped_outcome(self, asked: _StopAsked) -> Outcome:
        """The end that was asked for, with what the method still had to say."""
        method = self._method
        if method is None or not method.done() or method.cancelled() or method.exception() is not None:
            return Outcome(asked.result, reason=asked.reason)
        own = method.result()
        return Outcome(asked.result, output=own.output, reason=asked.reason, exit_code=own.exit_code)

    def _own_outcome(self) -> Outcome:
        """How the method ended by itself."""
        method = self._method
        assert method is not None
        if method.cancelled():
            return _error("cancelled", f"{self.order.plugin}.{self.order.method} was cancelled from inside")
        fault = method.exception()
        return method.result() if fault is None else _error(type(fault).__name__, _said(fault))

    async def _call(self) -> Outcome:
        """The method's outcome; whatever it raises is an error of its own, never of the agent's."""
        order = self.order
        try:
            outcome = await self._workbench.call(self, order.plugin, order.method, order.parameters)
            return await self._with_artefacts(outcome) if order.artefacts else outcome
        except (Exception, SystemExit, KeyboardInterrupt) as fault:
            # A plugin is foreign code: what it raises is shown in the step's own log and ends this attempt only.
            trace = "".join(traceback.format_exception(fault))
            await self._ship.write(Source.SYSTEM, trace.encode(errors="replace"))
            return _error(type(fault).__name__, _said(fault))

    async def _with_artefacts(self, outcome: Outcome) -> Outcome:
        """The outcome with the files that the plan's patterns find, beside those that the method itself named. That
        there is none changes no verdict: it stands in the log.
        """
        try:
            found, missing = await self._workbench.find_artefacts(self, self.order.artefacts)
        except LookupError as fault:
            self._ship.say(f"proctor: the artefacts are not known: {fault}")
            return outcome
        for pattern in missing:
            self._ship.say(f"proctor: no file matches the artefact pattern {pattern}")
        own = outcome.output.get("artefacts", [])
        if not isinstance(own, list):
            return outcome
        return replace(outcome, output={**outcome.output, "artefacts": [*own, *found]})

    def _masked(self, error: MethodError | None) -> MethodError | None:
        if error is None:
            return None
        return MethodError(
            kind=shorten(self._redactor.extract(error.kind), 200),
            message=shorten(self._redactor.extract(error.message), MAX_REASON),
            data=fit(self._redactor.document(error.data), MAX_ERROR_DATA),
        )

    async def _bring_down(self, grace_s: float) -> bool | None:
        """Stop what runs on the targets, then the method; whether the tree is gone, None where that is unknown."""
        method = self._method
        if method is None:
            return None
        began = asyncio.get_running_loop().time()
        gone = await self._stop_trees(grace_s)
        await asyncio.wait({method}, timeout=LAST_WORDS)
        if not method.done():
            method.cancel()
            await asyncio.wait({method}, timeout=STUCK)
            if gone is not None:
                # It may have started one more command while it was being stopped.
                gone = await self._look_again(began + grace_s + BRING_DOWN)
        if not method.done():
            log.error("method_does_not_end", plugin=self.order.plugin, method=self.order.method)
        elif not method.cancelled() and method.exception() is not None:
            fault = type(method.exception()).__name__
            log.warning("method_failed_while_stopping", attempt=self.marker, fault=fault)
        return gone

    async def _make_up(self) -> bool | None:
        """End what was left when a connection was lost in the middle of a command."""
        self._ship.say("proctor: the connection was lost; what the command left is looked for and ended")
        gone = await self._stop_trees(self.order.grace_s, lost=True)
        said = {True: "nothing of it is left", False: "something of it could not be ended", None: "that is not known"}
        self._ship.say(f"proctor: after the lost connection: {said[gone]}")
        return gone

    async def _look_again(self, until: float) -> bool | None:
        try:
            async with asyncio.timeout_at(until):
                return await self._stop_trees(0.0)
        except TimeoutError:
            return None

    async def _stop_trees(self, grace_s: float, *, lost: bool = False) -> bool | None:
        order = self.order
        target = order.target or self._default_target
        if target is not None:
            self._targets.add(target)
        try:
            written = await self._journal.groups(order.step, order.attempt)
        except sqlite3.Error as fault:
            # Without them the marker in the environment still finds the processes.
            log.error("journal_not_readable", error=str(fault))
            written = []
        groups = [*self._groups, *(group for group in written if group not in self._groups)]
        found = await stop_trees(self._workbench, self._targets | self._lost, groups, self.marker, grace_s, lost=lost)
        for name, gone in found.items():
            mine = [group for group in groups if group.target == name]
            self._unsettled.pop(name, None)
            self._left.pop(name, None)
            if gone is None and (mine or name in self._lost):
                self._unsettled[name] = mine
            elif gone is False:
                self._unsettled[name] = mine
                self._left[name] = await self._workbench.find_left(name, mine, self.marker) or []
        return all_gone(found)

    def _tell_left(self) -> str:
        """What could not be ended, in the log and as a sentence."""
        told = [describe_left(target, left) for target, left in self._left.items()]
        for text in told:
            self._ship.say(f"proctor: {text}")
        return "; ".join(told)


async def stop_trees(
    workbench: Workbench,
    targets: set[str],
    groups: list[ProcessGroup],
    marker: str,
    grace_s: float,
    *,
    lost: bool = False,
) -> dict[str, bool | None]:
    """Stop an attempt's processes on several targets at once: whether they are gone, by target; None: not known."""
    names = sorted(targets | {group.target for group in groups})

    async def stop(target: str) -> bool | None:
        mine = [group for group in groups if group.target == target]
        try:
            return await workbench.stop_tree(target, mine, marker, grace_s, lost=lost)
        except Exception as fault:
            log.warning("tree_not_stopped", target=target, attempt=marker, error=str(fault) or type(fault).__name__)
            return None

    return dict(zip(names, await asyncio.gather(*map(stop, names)), strict=True))


def all_gone(found: Mapping[str, bool | None]) -> bool | None:
    """False if any is left, None if any cannot be told."""
    if False in found.values():
        return False
    return None if None in found.values() or not found else True


def _error(kind: str, message: str) -> Outcome:
    return Outcome(StepResult.ERROR, reason=message, error=MethodError(kind=kind, message=message))


def _said(fault: BaseException) -> str:
    """What an exception says of itself; its kind where it says nothing, or cannot."""
    try:
        return str(fault) or type(fault).__name__
    except Exception:
        return type(fault).__name__
