"""What follows at once from the end of a step, saved in the same commit: dependants become ready and get a slot.

Each of these is an event of its own, and would be decided as one a moment later; together they are saved by one
statement instead of three. Whatever is left out here stays an effect of the decision.
"""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from proctor_controller.db.hosts import candidates
from proctor_controller.db.runs.cascade import MAX_STEPS, NextNode, NextStep, load_next_nodes
from proctor_controller.db.session import Session
from proctor_controller.domain.hosts.placement import Candidate, choose
from proctor_controller.domain.runs import events
from proctor_controller.domain.runs.decide.dispatch import decide
from proctor_controller.domain.runs.decide.joining import as_changed, edges_as_changed, join
from proctor_controller.domain.runs.decision import Decision, Effect, FollowUp, PlaceStep, Slice, Stale
from proctor_controller.domain.runs.run import Run
from proctor_controller.domain.runs.step import Phase, StepKind
from proctor_controller.engine.orders import Orders
from proctor_controller.engine.queue import offer_slot
from proctor_controller.engine.services import EngineServices

MAX_NODES = 16
QUEUE_AGE = 0.5
"""Seconds for which a step that was seen to wait for a slot is believed to wait still."""


class Cascade:
    """Extends decisions by what follows from them."""

    def __init__(self, services: EngineServices, orders: Orders) -> None:
        self._policy = services.settings.policy
        self._cache = services.cache
        self._orders = orders
        self._queue_seen = 0.0

    def note_queue(self) -> None:
        """Some step waits for a slot: new ones do not overtake it."""
        self._queue_seen = time.monotonic()

    async def extend(self, db: Session, decision: Decision, now: datetime) -> Decision:
        """The decision with those that follow from it. It is saved as the first one would be."""
        follows: dict[str, FollowUp] = {}
        for effect in decision.effects:
            if isinstance(effect, FollowUp) and isinstance(effect.event, events.NodeDecided):
                follows.setdefault(effect.event.node, effect)
        if not follows or len(follows) > MAX_NODES:
            return decision
        found = await load_next_nodes(db, decision.run.id, list(follows))
        ready: dict[str, NextStep] = {}
        for name, follow in follows.items():
            found_node = found.get(name)
            following = None if found_node is None else self._follow(decision, found_node, follow.event, now)
            if found_node is None or following is None:
                continue
            # A node that several ends open has an effect for each of them; all are done with.
            left = tuple(each for each in decision.effects if each != follow)
            decision = join(replace(decision, effects=left), following)
            ready.update({each.step.id: each for each in found_node.steps})
        return await self._place(db, decision, ready, now)

    def _follow(self, decision: Decision, found: NextNode, event: events.Event, now: datetime) -> Decision | None:
        """The decision about a node as the former ones leave it; None where it is better made by itself."""
        changed = {node.name: node for node in decision.nodes}
        node = as_changed(found.node, changed)
        if node.phase is not Phase.MAIN:
            return None
        if node.is_stopping or (node.rules is not None and node.rules.is_reading):
            # What its expressions read may be what has not been saved yet.
            return None
        limit = MAX_STEPS if node.dead else max(0, min(MAX_STEPS, node.room))
        if len(found.steps) > limit == MAX_STEPS:
            return None
        part = Slice(
            run=decision.run,
            steps=tuple(each.step for each in found.steps[:limit]),
            nodes=(node,),
            edges={name: edges_as_changed(edges, changed) for name, edges in found.edges.items()},
            more=len(found.steps) > limit,
        )
        outcome = decide(part, event, now, self._policy)
        return None if isinstance(outcome, Stale) else outcome

    async def _place(self, db: Session, decision: Decision, ready: Mapping[str, NextStep], now: datetime) -> Decision:
        """Give steps that have become ready the slots that the decision releases on their host, or one that is free."""
        if decision.held or time.monotonic() - self._queue_seen < QUEUE_AGE:
            return decision
        slots = Counter(lease.agent for lease in decision.released)
        for effect in decision.effects:
            each = ready.get(effect.step) if isinstance(effect, PlaceStep) else None
            if each is None or each.step.kind is not StepKind.METHOD:
                continue
            found = await self._find_host(db, each, decision.run)
            if found is None or (decision.held and not slots[found.candidate.agent]):
                continue
            handed = slots[found.candidate.agent] > 0
            placed = self._dispatch(decision, each, effect, found.candidate, now)
            if placed is None:
                continue
            decision = placed
            slots[found.candidate.agent] -= 1
            if not handed:
                # Of free slots one statement claims one only.
                break
        return decision

    def _dispatch(
        self, decision: Decision, each: NextStep, effect: Effect, agent: Candidate, now: datetime
    ) -> Decision | None:
        step = next(step for step in decision.steps if step.id == each.step.id)
        node = next(node for node in decision.nodes if node.name == step.node)
        event = events.LeasesHeld(decision.run.id, step.id, offer_slot(agent.agent, agent.host))
        part = Slice(run=decision.run, steps=(step,), nodes=(node,))
        placed = decide(part, event, now, self._policy)
        if isinstance(placed, Stale):
            return None
        self._orders.prepare(each.step, each.call)
        left = tuple(other for other in decision.effects if other is not effect)
        return join(replace(decision, effects=left), placed)

    async def _find_host(self, db: Session, each: NextStep, run: Run) -> candidates.FoundCandidate | None:
        """The agent of the host, where it takes work as far as was heard a moment ago; its claim asks again."""
        if each.place.host is None:
            return None
        # A host that the run may hold for itself is remembered for this run only.
        whose = run.group if each.step.role is None else f"run {run.id}"
        key = (each.place, each.call.plugin, each.call.method, whose)
        known = self._cache.host(key)
        if known is not None:
            return known
        found = await candidates.find_candidates(
            db, each.place, each.call.plugin, each.call.method, group=run.group, with_spec=True, run=run.id
        )
        chosen = choose(f.candidate for f in found)
        if chosen is None:
            return None
        first = found[0]
        if first.slots_made < first.candidate.slots:
            return None
        self._cache.keep_host(key, first)
        return first
