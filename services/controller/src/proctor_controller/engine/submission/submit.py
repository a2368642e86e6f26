"""A new run: stored with the decision about its first step in one commit, and begun at once."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from proctor_common.messages.views import RunView
from proctor_common.states import StepState
from proctor_controller.db.hosts import candidates
from proctor_controller.db.runs.attempts import MethodCall
from proctor_controller.db.runs.decisions import Saved
from proctor_controller.db.runs.submissions import Hidden, insert_run, new_run_row
from proctor_controller.db.runs.views import run_view
from proctor_controller.db.session import Session
from proctor_controller.domain.documents.method_parameters import mask, secret_texts
from proctor_controller.domain.hosts.placement import Candidate, choose, explain
from proctor_controller.domain.runs import events
from proctor_controller.domain.runs.decide.dispatch import decide
from proctor_controller.domain.runs.decide.joining import apply, join
from proctor_controller.domain.runs.decision import Decision, EventRow, PlaceStep, Stale
from proctor_controller.domain.runs.submission import RunSpec, StepSpec
from proctor_controller.engine.orders import Orders
from proctor_controller.engine.queue import Queue, offer_slot
from proctor_controller.engine.services import EngineServices

CREATED = "queued"


class ParentEnded(Exception):
    """The step that the run was to stand for runs no longer; nothing is stored."""


class Submissions:
    """Stores and begins runs. ``committed``: performs what follows from a decision that was saved."""

    def __init__(
        self,
        services: EngineServices,
        orders: Orders,
        queue: Queue,
        committed: Callable[[Decision, Saved], None],
    ) -> None:
        self._seal = services.seal
        self._cache = services.cache
        self._policy = services.settings.policy
        self._orders = orders
        self._queue = queue
        self._committed = committed

    async def submit(
        self, db: Session, spec: RunSpec, now: datetime, found: list[candidates.FoundCandidate] | None = None
    ) -> RunView:
        """Store and begin a run. ``now``: the database's clock, a moment ago; ``found``: the agents for its only step,
        where they were looked up already.

        Raises DuplicateRun, ParentEnded, ProctorError ``database_unavailable``.
        """
        fit = [each.candidate for each in found or ()]
        chosen = choose(fit) if len(spec.steps) == 1 else None
        for each in found or ():
            if chosen is not None and each.candidate.agent == chosen.agent and each.slots_made < chosen.slots:
                await candidates.make_slots(db, chosen.agent)
        view = await self._submit(db, spec, now, self._decide_first(spec, fit, chosen, now))
        if view is None:
            # Somebody took the last slot in between.
            view = await self._submit(db, spec, now, self._decide_first(spec, fit, None, now))
        if view is None:
            raise ParentEnded(spec.id)
        return view

    async def submit_at(self, db: Session, spec: RunSpec, now: datetime, host: Candidate) -> RunView | None:
        """Store and begin a run on an agent that was fit for it a moment ago; None, and nothing is stored, where it
        has no slot now, takes no work, or some step waits for a slot.

        Raises DuplicateRun, ProctorError ``database_unavailable``.
        """
        decision = self._decide_first(spec, [host], host, now)
        return await self._submit(db, spec, now, decision, if_nobody_waits=True)

    async def _submit(
        self, db: Session, spec: RunSpec, now: datetime, decision: Decision, *, if_nobody_waits: bool = False
    ) -> RunView | None:
        hidden = {step.id: self._hide(step) for step in spec.steps}
        sealed = self._seal.seal(dict(spec.hidden), spec.id) if spec.hidden else None
        inserted = await insert_run(db, spec, hidden, decision, now, sealed=sealed, if_nobody_waits=if_nobody_waits)
        if inserted is None:
            return None
        self._cache.set_clock(inserted.at)
        self._cache.note_ended(decision)
        if len(spec.steps) == 1:
            self._prepare(spec, inserted.number)
        self._committed(decision, Saved(inserted.ids, inserted.at))
        if any(step.state is StepState.WAITING for step in decision.steps):
            self._queue.serve_later()
        return run_view(new_run_row(spec, decision, inserted, now))

    def _decide_first(self, spec: RunSpec, fit: list[Candidate], chosen: Candidate | None, now: datetime) -> Decision:
        part = spec.first_slice()
        created = decide(part, events.RunCreated(spec.id), now, self._policy)
        if isinstance(created, Stale):
            raise ValueError(f"a new run cannot be begun: {created.why}")
        created = _with_birth(created)
        if len(spec.steps) != 1 or not fit:
            return created
        step = spec.steps[0]
        if chosen is not None:
            offer = offer_slot(chosen.agent, chosen.host)
            event: events.Event = events.LeasesHeld(spec.id, step.id, offer)
        else:
            event = events.NoSlot(spec.id, step.id, explain(step.place, fit, step.plugin, step.method))
        second = decide(apply(part, created), event, now, self._policy)
        if isinstance(second, Stale):
            return created
        return join(created, second, done=(PlaceStep,))

    def _prepare(self, spec: RunSpec, number: int) -> None:
        (step,), (row,) = spec.steps, spec.rows()
        rules = next((node.rules for node in spec.node_specs if node.name == step.node), None)
        call = MethodCall(number, step.plugin, step.method, step.parameters, step.env, step.target, rules=rules)
        self._orders.prepare(row, call, secret_texts(step.parameters, step.secrets))

    def _hide(self, step: StepSpec) -> Hidden:
        if not step.secrets:
            return Hidden(step.parameters, None)
        whole = {"parameters": step.parameters, "secrets": step.secrets}
        return Hidden(mask(step.parameters, step.secrets), self._seal.seal(whole, step.id))


def _with_birth(decision: Decision) -> Decision:
    """The first event of a run says that it is there; the others move up by one."""
    birth = EventRow(seq=1, kind="run", old=None, new=CREATED)
    moved = tuple(replace(row, seq=row.seq + 1) for row in decision.events)
    run = replace(decision.run, event_seq=decision.run.event_seq + 1)
    return replace(decision, run=run, events=(birth, *moved))
