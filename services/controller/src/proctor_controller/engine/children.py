"""Nested plans: a step's attempt that is a run of its own, with an id that follows from the step's and the attempt's.

Everything here may be done twice, and is done again when the step is due: begin the child, let it rest or go on as its
parent does, ask for its end, tell its parent of its end.
"""

import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from proctor_common.errors import ProctorError
from proctor_common.limits import MAX_PLAN_DEPTH
from proctor_common.states import RunResult, RunState
from proctor_controller.db.runs.children import Kin, find_nests, load_kin, load_nest
from proctor_controller.db.session import session
from proctor_controller.domain.expressions.evaluate import ExpressionFault, fill
from proctor_controller.domain.hosts.holders import NAME
from proctor_controller.domain.runs import events
from proctor_controller.domain.runs.decision import Effect, StartChild, StopChild, TellChildren, TellParent
from proctor_controller.domain.runs.order_rendering import RenderFault
from proctor_controller.domain.runs.run import UNSTARTED
from proctor_controller.domain.runs.verdict import describe

if TYPE_CHECKING:
    from proctor_controller.engine.engine import Engine

_SPACE = uuid.UUID("5f0c1d3e-8a7b-4c52-9d36-0f6f7f1b2a90")
PARENT = "its parent"
"""Who paused a child that rests because its parent does."""
RESTING = frozenset({RunState.PAUSING, RunState.PAUSED})


def child_id(step: str, attempt: int) -> str:
    """The id of the run that an attempt of a step stands for."""
    return str(uuid.uuid5(_SPACE, f"{step}.{attempt}"))


@dataclass(frozen=True, slots=True)
class Nested:
    """A nested plan to be begun. ``plan``: ``name@version``; ``parameters``: filled in."""

    run: str
    plan: str
    parameters: Mapping[str, Any]
    parent: str
    parent_step: str
    depth: int
    group: str | None
    created_by: str


Begin = Callable[[Nested], Awaitable[None]]
"""Stores and begins the child run, unless it is there already or its step runs no longer. Raises ProctorError: the plan
cannot be run so.
"""


class Children:
    """Performs the effects of nested plans. ``begin`` is set by whoever can read plans."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self.begin: Begin | None = None

    def start(self, run: str, effect: Effect) -> None:
        """See to a child in the background."""
        if isinstance(effect, StartChild):
            self._engine.tasks.start("child", self._see_to(run, effect.step, effect.attempt))

    def stop(self, run: str, effect: Effect) -> None:
        """Ask for the end of a child in the background."""
        if isinstance(effect, StopChild):
            self._engine.tasks.start("stop child", self._stop(run, effect.step, effect.attempt))

    def tell_parent(self, run: str, effect: Effect) -> None:
        """Tell the parent of a run's end in the background."""
        if isinstance(effect, TellParent):
            self._engine.tasks.start("tell parent", self._tell_parent(run))

    def tell_children(self, run: str, effect: Effect) -> None:
        """Let a run's children rest or go on as it does, in the background."""
        if isinstance(effect, TellChildren):
            self._engine.tasks.start("tell children", self._tell_children(run))

    async def _see_to(self, run: str, step: str, attempt: int) -> None:
        if await self._find(step, attempt):
            return
        try:
            nested = await self._nested(run, step, attempt)
            if nested is None:
                return
            if isinstance(nested, events.ChildRests):
                await self._engine.feed(nested)
                return
            if self.begin is None:
                raise RenderFault("this controller runs no nested plans")
            await self.begin(nested)
            await self._find(step, attempt)
        except RenderFault as fault:
            await self._refused(run, step, attempt, str(fault))
        except ProctorError as fault:
            if fault.status >= 500:
                raise
            await self._refused(run, step, attempt, _why(fault))

    async def _find(self, step: str, attempt: int) -> bool:
        """Whether the child is there; then it is seen to."""
        async with session(self._engine.database) as db:
            kin = await load_kin(db, child_id(step, attempt))
        if kin is not None:
            await self._follow(kin)
        return kin is not None

    async def _refused(self, run: str, step: str, attempt: int, why: str) -> None:
        child = child_id(step, attempt)
        await self._engine.feed(events.ChildEnded(run, step, attempt, child, RunResult.ERROR, reason=why))

    async def _nested(self, run: str, step: str, attempt: int) -> Nested | events.ChildRests | None:
        """What to begin; what its step waits for where its run is paused; None where the step does not ask for it any
        more. Raises RenderFault.
        """
        async with session(self._engine.database) as db:
            nest = await load_nest(db, step)
            if nest is None or nest.rules is None or nest.rules.child is None or nest.step.attempt != attempt:
                return None
            if nest.state in RESTING:
                return events.ChildRests(run, step, attempt, "its run to be resumed")
            if nest.depth >= MAX_PLAN_DEPTH:
                raise RenderFault(f"plans are nested more than {MAX_PLAN_DEPTH} deep")
            scope, _ = await self._engine.scopes.of_step(db, nest.step, nest.rules)
        try:
            parameters = fill(nest.rules.child.parameters, scope)
        except ExpressionFault as fault:
            raise RenderFault(describe("with", fault)) from None
        return Nested(
            run=child_id(step, attempt),
            plan=nest.rules.child.plan,
            parameters=parameters,
            parent=run,
            parent_step=step,
            depth=nest.depth + 1,
            group=nest.group,
            created_by=nest.created_by,
        )

    async def _follow(self, kin: Kin) -> None:
        """What the states of a child and its parent ask for."""
        if kin.state is RunState.FINISHED:
            await self._ended(kin)
            return
        if kin.parent_state in RESTING:
            if kin.state is RunState.RUNNING:
                await self._engine.feed(events.PauseAsked(kin.id, by=PARENT))
        elif kin.state in RESTING and kin.pause_by == PARENT:
            await self._engine.feed(events.ResumeAsked(kin.id, by=PARENT))
            return  # It tells its parent itself that it goes on.
        why = _rests(kin)
        if why != kin.resting:
            await self._engine.feed(events.ChildRests(kin.parent, kin.parent_step, kin.attempt, why))

    async def _ended(self, kin: Kin) -> None:
        if kin.result is None or child_id(kin.parent_step, kin.attempt) != kin.id:
            return
        await self._engine.feed(
            events.ChildEnded(
                kin.parent, kin.parent_step, kin.attempt, kin.id, kin.result, dict(kin.outputs), kin.reason
            )
        )

    async def _stop(self, run: str, step: str, attempt: int) -> None:
        child = child_id(step, attempt)
        async with session(self._engine.database) as db:
            kin = await load_kin(db, child)
        if kin is None:
            # It never will be there: a child is stored only while its step is running.
            await self._engine.feed(events.ChildEnded(run, step, attempt, child, RunResult.CANCELLED))
        elif kin.state is RunState.FINISHED:
            await self._ended(kin)
        else:
            await self._engine.feed(events.CancelAsked(child, by=PARENT))

    async def _tell_parent(self, run: str) -> None:
        async with session(self._engine.database) as db:
            kin = await load_kin(db, run)
        if kin is not None and child_id(kin.parent_step, kin.attempt) == kin.id:
            await self._follow(kin)

    async def _tell_children(self, run: str) -> None:
        async with session(self._engine.database) as db:
            nests = await find_nests(db, run)
        for step, attempt in nests:
            await self._see_to(run, step, attempt)


def _rests(kin: Kin) -> str | None:
    """What the step of a child waits for that rests; None for one that goes on, or has still something under way."""
    if kin.state is RunState.PAUSED:
        return f"run {kin.number} ({kin.name[:NAME]}), paused by {kin.pause_by}, to be resumed"
    if kin.state in UNSTARTED and kin.parent_state in RESTING:
        return f"run {kin.number} ({kin.name[:NAME]}), which begins once its parent is resumed"
    return None


def _why(fault: ProctorError) -> str:
    """A refusal in one line, with the first things that are wrong."""
    wrong = fault.details.get("errors") or []
    places = "; ".join(f"{each.get('path') or ''} {each.get('message') or ''}".strip() for each in wrong[:3])
    return f"the nested plan cannot be run: {fault.message}" + (f" ({places})" if places else "")
