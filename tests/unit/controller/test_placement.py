"""Which agent a step goes to, and what it waits for otherwise."""

from dataclasses import replace

from proctor_common.states import AgentState
from proctor_controller.domain.hosts.placement import Candidate, Placement, choose, explain
from proctor_controller.domain.plan.order import find_cycle

FREE = Candidate(
    agent="1",
    host="a",
    state=AgentState.ONLINE,
    registered=True,
    draining=False,
    leftovers=False,
    has_plugin=True,
    has_method=True,
    slots=4,
    free=2,
)
GROUP = Placement(group="lab")


def test_the_least_loaded_takes_it() -> None:
    idle = replace(FREE, agent="2", host="b", slots=2, free=2)
    assert choose([FREE, idle]) is idle
    assert choose([replace(FREE, host="b"), FREE]) is FREE


def test_who_may_not_work_is_passed_over() -> None:
    for change in (
        {"state": AgentState.SUSPECT},
        {"state": AgentState.LOST},
        {"draining": True},
        {"leftovers": True},
        {"registered": False},
        {"has_method": False},
        {"free": 0},
        {"queued": True},
    ):
        other = replace(FREE, **change)
        assert choose([other]) is None, change
    assert choose([replace(FREE, queued=True)], overtake=True) is not None


def test_what_a_step_waits_for_is_said() -> None:
    assert explain(GROUP, [], "p", "m") == "an agent of group lab: there is none"
    assert explain(GROUP, [replace(FREE, has_method=False)], "p", "m") == "an agent of group lab: none has p.m"
    assert explain(GROUP, [replace(FREE, draining=True)], "p", "m") == "host a: it is drained"
    full = explain(Placement(host="a"), [replace(FREE, free=0)], "p", "m")
    assert full == "a free slot on host a: 4 of 4 are busy"
    queued = explain(Placement(host="a"), [replace(FREE, queued=True)], "p", "m")
    assert queued == "a free slot on host a: 2 of 4 are busy; others wait for them"
    kept = explain(GROUP, [replace(FREE, kept="run 7 (x) has it for itself")], "p", "m")
    assert kept == "host a: run 7 (x) has it for itself"
    two = [replace(FREE, draining=True), replace(FREE, host="b", state=AgentState.SUSPECT)]
    why = (
        "an agent of group lab: 2 agents, and none may take work (a: it is drained; b: its heartbeats stopped a moment"
    )
    assert explain(GROUP, two, "p", "m").startswith(why)


def test_circles() -> None:
    assert find_cycle({"a": [], "b": ["a"], "c": ["a", "b", "nobody"]}) == []
    assert find_cycle({"a": ["a"]}) == ["a", "a"]
    assert find_cycle({"x": ["a"], "a": ["b"], "b": ["c"], "c": ["a"]}) == ["a", "b", "c", "a"]
    chain = {str(n): [str(n + 1)] for n in range(5000)}
    assert find_cycle(chain) == []
    assert len(find_cycle({**chain, "5000": ["0"]})) == 5002
