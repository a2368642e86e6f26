"""A world around `decide` without I/O: rows, agents with journals, messages on their way, crashes; for properties."""

import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from proctor_common.states import RunState, StepResult, StepState
from proctor_controller.domain.runs import events
from proctor_controller.domain.runs.decide.dispatch import decide
from proctor_controller.domain.runs.decision import (
    Allocate,
    CancelAttempt,
    Decision,
    Effect,
    FollowUp,
    LookLater,
    PlaceReady,
    PlaceStep,
    QueryAttempt,
    ServeQueue,
    Slice,
    Stale,
    StartAttempt,
)
from proctor_controller.domain.runs.reach import Reach, Reached, reach
from proctor_controller.domain.runs.run import RUN_TRANSITIONS
from proctor_controller.domain.runs.step import STEP_TRANSITIONS, AttemptEnd, Edge, Node, Phase, RetryOn, Step, StepKind
from proctor_controller.domain.runs.submission import RunSpec

START = datetime(2026, 12, 1, tzinfo=UTC)
Key = tuple[str, int]


@dataclass
class Journal:
    """An agent: `listening` = its orders have a responder; `heard` = its heartbeats arrive."""

    name: str
    slots: int
    listening: bool = True
    heard: bool = True
    busy: bool = False
    running: dict[Key, str] = field(default_factory=dict)
    ended: dict[Key, tuple[str, AttemptEnd]] = field(default_factory=dict)
    tombstones: set[Key] = field(default_factory=set)

    def start(self, order: StartAttempt, now: datetime) -> events.OrderAnswer:
        key = (order.step, order.attempt)
        for known, token in ((key, self.running.get(key)), (key, self.ended.get(key, ("",))[0])):
            if token:
                return events.OrderAnswer.ACCEPTED if token == order.token else events.OrderAnswer.STALE
            del known
        if key in self.tombstones:
            return events.OrderAnswer.TOMBSTONED
        if now > order.not_after:
            self.tombstones.add(key)
            return events.OrderAnswer.EXPIRED
        if self.busy or len(self.running) >= self.slots:
            return events.OrderAnswer.BUSY
        self.running[key] = order.token
        return events.OrderAnswer.ACCEPTED


class World:
    """Feeds events, keeps rows, and asserts after each decision what must always hold."""

    def __init__(self, spec: RunSpec, agents: int = 2, slots: int = 2) -> None:
        part = spec.first_slice()
        self.spec = spec
        self.now = START
        self.run = part.run
        self.steps: dict[str, Step] = {step.id: step for step in spec.rows()}
        self.nodes: dict[str, Node] = spec.nodes()
        self.agents = {f"a{n}": Journal(f"a{n}", slots) for n in range(agents)}
        self.leases: dict[str, str] = {}
        self.effects: list[Effect] = []
        self.orders: list[tuple[StartAttempt, int]] = []
        self.replies: list[events.Event] = []
        self.reports: list[events.StepEnded] = []
        self.executions: Counter[Key] = Counter()
        self.seqs: list[int] = []
        self.taken: set[tuple[str, str, str]] = set()
        self.over: set[Key] = set()
        self.tokens = 0
        self.feed(events.RunCreated(self.run.id))

    # -- the shell ------------------------------------------------------------------------------------------------

    def slice_of(self, event: events.Event) -> Slice:
        if isinstance(event, events.OfRun):
            node = self.nodes[event.node] if isinstance(event, events.NodeDecided) else None
            wanted = reach(event, self.run, node, self.now)
            steps, limit = self._reached(wanted), wanted.limit
        else:
            steps, limit = [self.steps[event.step]], 1
        names = {step.node for step in steps[:limit]}
        if isinstance(event, events.NodeDecided):
            names.add(event.node)
        edges: dict[str, tuple[Edge, ...]] = {}
        for edge in self.spec.edges:
            if edge.source in names:
                edges[edge.source] = (
                    *edges.get(edge.source, ()),
                    Edge(edge.condition, self.nodes[edge.target]),
                )
        return Slice(
            run=self.run,
            steps=tuple(steps[:limit]),
            nodes=tuple(self.nodes[name] for name in sorted(names)),
            edges=edges,
            more=len(steps) > limit,
            undone={step.id: self._undone(step) for step in steps[:limit] if step.phase is Phase.ROLLBACK},
        )

    def _undone(self, step: Step) -> dict[str, object]:
        node = step.node.partition(".")[2]
        (found,) = [s for s in self.steps.values() if (s.node, s.instance) == (node, step.instance)]
        return {"result": {"verdict": found.result.value if found.result else None}, "outputs": {}, "host": found.host}

    def _reached(self, wanted: Reach) -> list[Step]:
        gone = {StepState.FINISHED, StepState.CANCELLING}
        rows = list(self.steps.values())
        match wanted.steps:
            case Reached.NONE:
                return []
            case Reached.NOTIFIABLE:
                pending = [s for s in rows if s.state is StepState.PENDING and s.phase == wanted.of]
                return [s for s in pending if _is_notifiable(self.nodes[s.node])]
            case Reached.UNFINISHED:
                return [s for s in rows if s.state not in gone and s.phase == wanted.of]
            case Reached.PENDING_OF_NODE:
                return [s for s in rows if s.state is StepState.PENDING and s.node == wanted.of]
            case Reached.UNFINISHED_OF_NODE:
                return [s for s in rows if s.state not in gone and s.node == wanted.of]

    def feed(self, event: events.Event) -> Decision | Stale:
        part = self.slice_of(event)
        outcome = decide(part, event, self.now)
        if isinstance(outcome, Stale):
            return outcome
        assert self.run.state is not RunState.FINISHED, "finished absorbs"
        self._check_rows(outcome)
        self.run = outcome.run
        self.steps.update({step.id: step for step in outcome.steps})
        self.nodes.update({node.name: node for node in outcome.nodes})
        for row in outcome.events:
            self.seqs.append(row.seq)
            self.taken.add((row.kind, row.old or "", row.new))
        for released in outcome.released:
            self.leases.pop(released.token, None)
        for held in outcome.held:
            self.leases[held.token] = held.agent
        self.effects += outcome.effects
        self._check_world()
        return outcome

    def _check_rows(self, decision: Decision) -> None:
        for step in decision.steps:
            before = self.steps[step.id]
            assert before.state is not StepState.FINISHED, "a finished step was touched"
            if before.state is not step.state:
                assert _reachable(before.state, step.state)
        for attempt in decision.attempts:
            key = (attempt.step, attempt.attempt)
            assert key not in self.over, "an attempt that was over goes on"
            if attempt.state is StepState.FINISHED:
                self.over.add(key)
            again = {step.state for step in decision.steps if step.id == attempt.step} - {StepState.FINISHED}
            if attempt.result is StepResult.LOST and again:
                step = self.steps[attempt.step]
                assert step.idempotent and RetryOn.AGENT_LOST in step.retry.on, "it may run still, and goes on anew"
        for row in decision.events:
            table: dict[str, set[str]] = {
                old.value: {new.value for new in allowed}
                for old, allowed in (RUN_TRANSITIONS if row.kind == "run" else STEP_TRANSITIONS).items()
            }
            assert row.old is not None
            assert row.new in table[row.old], row

    def _check_world(self) -> None:
        assert self.seqs == list(range(1, len(self.seqs) + 1)), "events have holes"
        left = [step for step in self.steps.values() if step.state is not StepState.FINISHED]
        main = [step for step in self.steps.values() if step.phase is Phase.MAIN]
        assert self.run.undecided == sum(step.phase is Phase.MAIN for step in left)
        assert sum(self.run.tally.values()) == len(main) - self.run.undecided
        for phase, count in self.run.cleanup.items():
            assert count == sum(step.phase is phase for step in left)
        assert self.run.live == sum(step.is_in_flight for step in left)
        assert self.run.live == 0 or self.run.state is not RunState.PAUSED, "paused while something lives"
        live = {step.token for step in self.steps.values() if step.token and step.state in _LIVE}
        assert live == set(self.leases), "slots and live attempts differ"
        assert (self.run.state is RunState.FINISHED) == (self.run.result is not None)
        if self.run.state is RunState.FINISHED:
            assert not left
        for step in left:
            assert step.state in {StepState.PENDING, StepState.WAITING} or step.due_at is not None, step

    # -- things that happen ---------------------------------------------------------------------------------------

    def perform(self, index: int) -> None:
        if not self.effects:
            return
        effect = self.effects.pop(index % len(self.effects))
        match effect:
            case StartAttempt():
                self.orders.append((effect, effect.sends))
            case CancelAttempt() | QueryAttempt():
                self._ask(effect)
            case PlaceStep():
                self.place(effect.step)
            case ServeQueue():
                self.serve()
            case FollowUp():
                self.feed(effect.event)
            case LookLater():
                self.feed(events.StepDue(self.run.id, effect.step))
            case Allocate():
                self.feed(events.HostsHeld(self.run.id))
            case PlaceReady():
                for step in list(self.steps.values()):
                    if step.state is StepState.READY and step.kind is StepKind.METHOD:
                        self.place(step.id)

    def crash(self) -> None:
        """The controller dies between commit and perform."""
        self.effects.clear()

    def place(self, step: str) -> None:
        agent = self._free()
        if agent is None:
            self.feed(events.NoSlot(self.run.id, step, "a slot"))
            return
        self.tokens += 1
        offer = events.Offer(agent.name, agent.name, f"t{self.tokens}")
        self.feed(events.LeasesHeld(self.run.id, step, offer))

    def _free(self) -> Journal | None:
        used = Counter(self.leases.values())
        free = [a for a in self.agents.values() if a.heard and used[a.name] < a.slots]
        # Not always the same one, so that a second dispatch often goes elsewhere.
        return free[self.tokens % len(free)] if free else None

    def serve(self) -> None:
        for step in sorted(self.steps.values(), key=lambda s: (s.ready_at or START, s.id)):
            if step.state is StepState.WAITING and self._free() is not None:
                self.place(step.id)

    def deliver(self, index: int) -> None:
        """An order arrives; its answer is on the way, or nobody listens."""
        if not self.orders:
            return
        order, sends = self.orders.pop(index % len(self.orders))
        agent = self.agents[order.agent]
        if not agent.listening:
            self.replies.append(events.OrderUndelivered(self.run.id, order.step, order.attempt, order.token, sends))
            return
        key = (order.step, order.attempt)
        was_running = key in agent.running or key in agent.ended
        answer = agent.start(order, self.now)
        if answer is events.OrderAnswer.ACCEPTED and not was_running:
            self._executed(order)
        self.replies.append(events.OrderAnswered(self.run.id, order.step, order.attempt, order.token, answer, sends))

    def _executed(self, order: StartAttempt) -> None:
        self.executions[order.step, order.attempt] += 1
        assert self.executions[order.step, order.attempt] == 1, "an attempt was executed twice"
        step = self.steps[order.step]
        alive = [
            key
            for agent in self.agents.values()
            for key in agent.running
            if key[0] == order.step and key != (order.step, order.attempt)
        ]
        if alive:
            assert step.idempotent, f"{alive} may live while {order} starts"
            assert RetryOn.AGENT_LOST in step.retry.on

    def time_out(self, index: int) -> None:
        """The sender waits no longer and sends it again; the first copy may arrive all the same."""
        if self.orders:
            order, sends = self.orders[index % len(self.orders)]
            outcome = self.feed(events.OrderUnknown(self.run.id, order.step, order.attempt, order.token))
            if isinstance(outcome, Decision):
                self.orders.append((order, sends + 1))

    def hear(self, index: int, *, again: bool = False) -> None:
        """An answer arrives; with `again` it will come a second time."""
        if self.replies:
            at = index % len(self.replies)
            self.feed(self.replies[at] if again else self.replies.pop(at))

    def lose_reply(self, index: int) -> None:
        if self.replies:
            self.replies.pop(index % len(self.replies))

    def _ask(self, effect: CancelAttempt | QueryAttempt) -> None:
        agent = self.agents[effect.agent]
        if not agent.listening:
            return
        key = (effect.step, effect.attempt)
        names = (self.run.id, effect.step, effect.attempt, effect.token)
        if key in agent.ended:
            token, end = agent.ended[key]
            self.replies.append(events.StepEnded(self.run.id, effect.step, effect.attempt, token, agent.name, end))
        elif key in agent.running:
            self.replies.append(events.StillRunning(*names))
            if isinstance(effect, CancelAttempt):
                self.end(agent, key, StepResult(effect.cause))
        else:
            agent.tombstones.add(key)
            self.replies.append(events.NeverStarted(*names))

    def end(self, agent: Journal, key: Key, result: StepResult) -> None:
        """An attempt ends on its agent, which journals it and reports it."""
        token = agent.running.pop(key)
        end = AttemptEnd(result)
        agent.ended[key] = (token, end)
        self.reports.append(events.StepEnded(self.run.id, key[0], key[1], token, agent.name, end))

    def end_some(self, index: int, result: StepResult) -> None:
        running = [(agent, key) for agent in self.agents.values() for key in agent.running]
        if running:
            agent, key = running[index % len(running)]
            self.end(agent, key, result)

    def report(self, index: int, *, again: bool = False) -> None:
        """A report arrives; with `again` it will come a second time."""
        if self.reports:
            at = index % len(self.reports)
            event = self.reports[at] if again else self.reports.pop(at)
            if self.agents[event.agent].listening:
                self.feed(event)

    def restart_agent(self, index: int) -> None:
        """An agent is killed and starts again: what ran is lost, and it says so."""
        agent = list(self.agents.values())[index % len(self.agents)]
        for key in list(agent.running):
            self.end(agent, key, StepResult.LOST)

    def cut_off(self, index: int) -> None:
        agent = list(self.agents.values())[index % len(self.agents)]
        agent.listening = False

    def lose_agent(self, index: int) -> None:
        agent = list(self.agents.values())[index % len(self.agents)]
        agent.listening = agent.heard = False
        for step in list(self.steps.values()):
            if step.agent == agent.name and step.state in _LIVE:
                self.feed(events.AgentLost(self.run.id, step.id, agent.name))

    def return_agent(self, index: int) -> None:
        agent = list(self.agents.values())[index % len(self.agents)]
        agent.listening = agent.heard = True
        for step in list(self.steps.values()):
            if step.agent == agent.name and step.state is StepState.LOST:
                self.feed(events.AgentReturned(self.run.id, step.id, agent.name))

    def forge(self, index: int) -> None:
        """An agent reports a step under a token it does not hold: nothing may change."""
        step = list(self.steps.values())[index % len(self.steps)]
        before = (self.run, dict(self.steps))
        self.feed(events.StepEnded(self.run.id, step.id, step.attempt, "forged", "a0", AttemptEnd(StepResult.PASSED)))
        assert (self.run, self.steps) == before

    def tick(self) -> None:
        """The watchdog looks at what is due."""
        if self.run.due_at is not None and self.run.due_at <= self.now:
            self.feed(events.RunDue(self.run.id))
        for node in list(self.nodes.values()):
            if node.due_at is not None and node.phase is self.run.phase and self.run.state is not RunState.QUEUED:
                self.feed(events.NodeDecided(self.run.id, node.name))
        for step in list(self.steps.values()):
            agent = self.agents.get(step.agent or "")
            if agent is not None and not agent.heard and step.state in {StepState.DISPATCHED, StepState.RUNNING}:
                self.feed(events.AgentLost(self.run.id, step.id, agent.name))
            elif step.due_at is not None and step.due_at <= self.now:
                self.feed(events.StepDue(self.run.id, step.id))
        self.serve()

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def settle(self, rng: random.Random, *, rounds: int = 400, agents_return: bool = True) -> None:
        """From here on everything works: the run must end."""
        for agent in self.agents.values():
            agent.busy = False
            if agents_return:
                agent.listening = agent.heard = True
        self.feed(events.ResumeAsked(self.run.id, "somebody"))
        for _ in range(rounds):
            if self.run.state is RunState.FINISHED:
                return
            self.tick()
            while self.effects or self.orders or self.replies or self.reports:
                self.perform(rng.randrange(1000))
                self.deliver(rng.randrange(1000))
                self.hear(rng.randrange(1000))
                self.report(rng.randrange(1000))
            self.end_some(rng.randrange(1000), StepResult.PASSED)
            self.advance(7)
        raise AssertionError(f"the run has not ended: {self.run}, {list(self.steps.values())}")


_LIVE = {StepState.DISPATCHED, StepState.RUNNING, StepState.LOST, StepState.CANCELLING}


def _reachable(old: StepState, new: StepState) -> bool:
    """Whether a decision that makes several transitions may lead from one state to the other."""
    seen, todo = {old}, [old]
    while todo:
        for following in STEP_TRANSITIONS[todo.pop()]:
            if following not in seen:
                seen.add(following)
                todo.append(following)
    return new in seen


def _is_notifiable(node: Node) -> bool:
    """Whether pending steps of the node are to hear that its edges are decided."""
    fresh = node.max_parallel is None or node.untold == node.unfinished
    return node.due_at is not None or (node.undecided == 0 and fresh)
