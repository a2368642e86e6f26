"""Nested plans: a step's attempt that is a run of its own, with an id that follows from the step's and the attempt's.

Everything here may be done twice, and is done again when the step is due: begin the child, let it rest or go on as its
parent does, ask for its end, tell its parent of its end.
"""

import uuid

from proctor_common.errors import ProctorError
from proctor_common.limits import MAX_PLAN_DEPTH
from proctor_common.states import RunResult, RunState
from proctor_controller.db.hosts.candidates import read_clock
from proctor_controller.db.runs.children import Kin, find_nests, load_kin, load_nest
from proctor_controller.db.runs.submissions import DuplicateRun
from proctor_controller.db.session import session
from proctor_controller.domain.expressions.evaluate import ExpressionFault, fill
from proctor_controller.domain.hosts.holders import NAME
from proctor_controller.domain.runs import events
from proctor_controller.domain.runs.order_rendering import RenderFault
from proctor_controller.domain.runs.run import UNSTARTED
from proctor_controller.domain.runs.verdict import describe
from proctor_controller.engine.services import EngineServices, Feed
from proctor_controller.engine.submission.planning import PlanningRequest, prepare_run
from proctor_controller.engine.submission.submit import ParentEnded, Submissions

_SPACE = uuid.UUID("5f0c1d3e-8a7b-4c52-9d36-0f6f7f1b2a90")
PARENT = "its parent"
"""Who paused a child that rests because its parent does."""
RESTING = frozenset({RunState.PAUSING, RunState.PAUSED})


def child_id(step: str, attempt: int) -> str:
    """The id of the run that an attempt of a step stands for."""
    return str(uuid.uuid5(_SPACE, f"{step}.{attempt}"))


class Children:
    """Performs the effects of nested plans."""

    def __init__(self, services: EngineServices, feed: Feed, submissions: Submissions) -> None:
        self._services = services
        self._database = services.database
        self._feed = feed
        self._submissions = submissions

    async def see_to(self, run: str, step: str, attempt: int) -> None:
        """Begin the child of a step's attempt; of one that is there: let it, and its parent, do what is due."""
        if await self._find(step, attempt):
            return
        try:
            nested = await self._nested(run, step, attempt)
            if nested is None:
                return
            if isinstance(nested, events.ChildRests):
                await self._feed(nested)
                return
            await self._begin(nested)
            await self._find(step, attempt)
        except RenderFault as fault:
            await self._refused(run, step, attempt, str(fault))
        except ProctorError as fault:
            if fault.status >= 500:
                raise
            await self._refused(run, step, attempt, _why(fault))

    async def _find(self, step: str, attempt: int) -> bool:
        """Whether the child is there; then it is seen to."""
        async with session(self._database) as db:
            kin = await load_kin(db, child_id(step, attempt))
        if kin is not None:
            await self._follow(kin)
        return kin is not None

    async def _refused(self, run: str, step: str, attempt: int, why: str) -> None:
        child = child_id(step, attempt)
        await self._feed(events.ChildEnded(run, step, attempt, child, RunResult.ERROR, reason=why))

    async def _begin(self, request: PlanningRequest) -> None:
        """Store and begin a child, unless it is there already or its step runs no longer. Raises ProctorError: its
        plan cannot be run so.
        """
        async with session(self._database) as db:
            try:
                spec = await prepare_run(self._services, db, request)
                await self._submissions.submit(db, spec, await read_clock(db))
            except (DuplicateRun, ParentEnded):
                return

    async def _nested(self, run: str, step: str, attempt: int) -> PlanningRequest | events.ChildRests | None:
        """What to begin; what its step waits for where its run is paused; None where the step does not ask for it any
        more. Raises RenderFault.
        """
        async with session(self._database) as db:
            nest = await load_nest(db, step)
            if nest is None or nest.rules is None or nest.rules.child is None or nest.step.attempt != attempt:
                return None
            if nest.state in RESTING:
                return events.ChildRests(run, step, attempt, "its run to be resumed")
            if nest.depth >= MAX_PLAN_DEPTH:
                raise RenderFault(f"plans are nested more than {MAX_PLAN_DEPTH} deep")
            scope, _ = await self._services.scopes.of_step(db, nest.step, nest.rules)
        try:
            parameters = fill(nest.rules.child.parameters, scope)
        except ExpressionFault as fault:
            raise RenderFault(describe("with", fault)) from None
        return PlanningRequest(
            run=child_id(step, attempt),
            plan=nest.rules.child.plan,
            parameters=parameters,
            group=nest.group,
            # What is nested below it again: a plan of the run's group, or of nobody.
            groups=None if nest.group is None else (nest.group, None),
            created_by=nest.created_by,
            parent=run,
            parent_step=step,
            depth=nest.depth + 1,
            # The version was fixed when its parent was submitted: it is run although it was deleted since.
            deleted=True,
        )

    async def _follow(self, kin: Kin) -> None:
        """What the states of a child and its parent ask for."""
        if kin.state is RunState.FINISHED:
            await self._ended(kin)
            return
        if kin.parent_state in RESTING:
            if kin.state is RunState.RUNNING:
                await self._feed(events.PauseAsked(kin.id, by=PARENT))
        elif kin.state in RESTING and kin.pause_by == PARENT:
            await self._feed(events.ResumeAsked(kin.id, by=PARENT))
            return  # It tells its parent itself that it goes on.
        why = _rests(kin)
        if why != kin.resting:
            await self._feed(events.ChildRests(kin.parent, kin.parent_step, kin.attempt, why))

    async def _ended(self, kin: Kin) -> None:
        if kin.result is None or child_id(kin.parent_step, kin.attempt) != kin.id:
            return
        await self._feed(
            events.ChildEnded(
                kin.parent, kin.parent_step, kin.attempt, kin.id, kin.result, dict(kin.outputs), kin.reason
            )
        )

    async def stop(self, run: str, step: str, attempt: int) -> None:
        """Ask for the end of a child."""
        child = child_id(step, attempt)
        async with session(self._database) as db:
            kin = await load_kin(db, child)
        if kin is None:
            # It never will be there: a child is stored only while its step is running.
            await self._feed(events.ChildEnded(run, step, attempt, child, RunResult.CANCELLED))
        elif kin.state is RunState.FINISHED:
            await self._ended(kin)
        else:
            await self._feed(events.CancelAsked(child, by=PARENT))

    async def tell_parent(self, run: str) -> None:
        """Tell the step that a run stands for what became of the run."""
        async with session(self._database) as db:
            kin = await load_kin(db, run)
        if kin is not None and child_id(kin.parent_step, kin.attempt) == kin.id:
            await self._follow(kin)

    async def tell_children(self, run: str) -> None:
        """Let a run's children rest or go on as it does."""
        async with session(self._database) as db:
            nests = await find_nests(db, run)
        for step, attempt in nests:
            await self.see_to(run, step, attempt)


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
