"""A new run: stored with the decision about its first step in one commit, and begun at once."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from proctor_common.messages.orders import StartOrder
from proctor_common.messages.views import RunView
from proctor_common.states import StepState
from proctor_controller.db.hosts import candidates
from proctor_controller.db.runs.decisions import Saved
from proctor_controller.db.runs.submissions import Hidden, Inserted, insert_run
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
        self, db: Session, spec: RunSpec, now: datetime, found: list[candidates.Found] | None = None
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
        self._cache.keep(apply(spec.first_slice(), decision))
        plain = not any(node.rules and (node.rules.is_filling or node.rules.artefacts) for node in spec.node_specs)
        if len(spec.steps) == 1 and plain:
            self._orders.prepare(_order(spec, spec.steps[0], inserted.number))
        self._committed(decision, Saved(inserted.ids, inserted.at))
        if any(step.state is StepState.WAITING for step in decision.steps):
            self._queue.look_later()
        return _view(spec, decision, inserted, now)

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


def _order(spec: RunSpec, step: StepSpec, number: int) -> StartOrder:
    return StartOrder(
        run=spec.id,
        run_number=number,
        step=step.id,
        step_name=step.name,
        attempt=1,
        token="",
        not_after=datetime.now(UTC),
        plugin=step.plugin,
        method=step.method,
        parameters=dict(step.parameters),
        secrets=secret_texts(step.parameters, step.secrets),
        env=dict(step.env),
        target=step.target,
        timeout_s=step.timeout_s,
        grace_s=step.grace_s,
    )


def _view(spec: RunSpec, decision: Decision, inserted: Inserted, now: datetime) -> RunView:
    run = decision.run
    steps: dict[str, int] = {name.value: count for name, count in run.tally.items()}
    decided = {step.id: step for step in decision.steps}
    for row in spec.rows():
        step = decided.get(row.id, row)
        if step.result is None:
            steps[step.state.value] = steps.get(step.state.value, 0) + 1
    return RunView(
        id=spec.id,
        number=inserted.number,
        name=spec.name,
        kind=spec.kind,
        state=run.state,
        result=run.result,
        reason=run.reason,
        created_at=now,
        started_at=run.started_at,
        finished_at=run.finished_at,
        plan=spec.plan,
        parameters=dict(spec.parameters),
        group=spec.group,
        created_by=spec.created_by,
        steps=steps,
    )
