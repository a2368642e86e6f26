"""Which hosts a run gets, and that nobody who waits for some is overtaken, left waiting, or waits in a circle."""

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from proctor_controller.domain.hosts.holders import Holder, has_alone, hold_it, name_run, name_runs
from proctor_controller.domain.hosts.leasing import LeasableHost, Leased, NotFree, NotThere, choose_hosts
from proctor_controller.domain.hosts.matching import match_all
from proctor_controller.domain.hosts.requirements import HostRole, Requirements, requirements_of

H1, H2, H3 = (LeasableHost(agent=f"a{n}", host=f"h{n}", groups=frozenset({"lab"})) for n in (1, 2, 3))
AWAY = {"hindrance": "it is drained", "away": True}


def with_(host: LeasableHost, **changes: object) -> LeasableHost:
    return LeasableHost(**{**{name: getattr(host, name) for name in host.__slots__}, **changes})


def test_a_matching_moves_others_on() -> None:
    assert match_all([["x", "y"], ["x"], ["y", "z"]]) == ["y", "x", "z"]
    assert match_all([["x"], ["x"]]) is None
    assert match_all([]) == []
    chain = [[n, n + 1] for n in range(300)]
    assert match_all([*chain, [0]]) == [*range(1, 301), 0]


def test_hosts_are_found_wherever_there_are_some() -> None:
    """Only the one way: the first role must not take what the others cannot do without."""
    roles = (HostRole("two", group="lab", count=2, exclusive=True), HostRole("one", host="h2", exclusive=True))
    found = choose_hosts(roles, [H1, H2, H3])
    assert isinstance(found, Leased)
    assert {name: [host.host for host in hosts] for name, hosts in found.hosts.items()} == {
        "two": ["h1", "h3"],
        "one": ["h2"],
    }
    shared = choose_hosts((HostRole("a", host="h1"), HostRole("b", host="h1")), [H1])
    assert isinstance(shared, Leased)


def test_a_host_has_all_that_a_role_and_its_steps_need() -> None:
    role = HostRole("a", group="lab", plugin="p", uses=("p.m", "q.n"), targets=("bmc",))
    assert requirements_of(json.loads(json.dumps(Requirements(roles=(role,)).to_json()))).roles == (role,)
    able = with_(H3, plugins=frozenset({"p", "q"}), methods=frozenset({"p.m", "q.n"}), targets=frozenset({"bmc"}))
    found = choose_hosts((role,), [with_(able, agent="a2", methods=frozenset({"p.m"})), able])
    assert isinstance(found, Leased)
    assert found.hosts["a"] == (able,)
    for less in ({"plugins": frozenset({"q"})}, {"methods": frozenset({"q.n"})}, {"targets": frozenset({"oob"})}):
        none = choose_hosts((role,), [with_(able, **less)])
        assert isinstance(none, NotThere)
        assert none.why == (
            "hosts.a: hosts of group lab with plugin p for steps that need p.m, q.n, target bmc: 1 wanted, there are 0"
        )
    # What nobody knows yet of one that has not connected may be all of it.
    later = choose_hosts((role,), [with_(H1, registered=False, hindrance="it has not connected yet", away=True)])
    assert isinstance(later, NotFree)


def test_what_can_never_be_had_together_is_said_at_once() -> None:
    for other in (HostRole("b", host="h1", exclusive=True), HostRole("b", host="h1")):
        found = choose_hosts((HostRole("a", host="h1", exclusive=True), other), [H1, H2])
        assert isinstance(found, NotThere)
        assert "together" in found.why


def test_who_waits_keeps_what_is_away_and_only_that() -> None:
    busy = with_(H2, alone="run 3 (x) has it for itself")
    both = (HostRole("a", host="h1"), HostRole("b", host="h2"))
    found = choose_hosts(both, [with_(H1, **AWAY), busy])
    assert isinstance(found, NotFree)
    assert found.keep == ("a1",), "a host that is there does not lie idle for one that is away"
    assert "h1: it is drained" in found.why
    found = choose_hosts(both, [H1, busy])
    assert isinstance(found, NotFree)
    assert set(found.keep) == {"a1", "a2"}
    any_one = (HostRole("a", group="lab", exclusive=True),)
    found = choose_hosts(any_one, [with_(H1, **AWAY), busy, with_(H3, **AWAY)])
    assert isinstance(found, NotFree)
    assert set(found.keep) == {"a1", "a2", "a3"}
    suspect = with_(H1, hindrance="its heartbeats stopped a moment ago")
    found = choose_hosts(both, [suspect, busy])
    assert isinstance(found, NotFree)
    assert set(found.keep) == {"a1", "a2"}, "it may be back in a moment"


def test_holders_are_named_to_those_who_may_see_them() -> None:
    one, other = Holder(7, "smoke", "lab"), Holder(8, "soak", None)
    assert name_run(one, None) == name_run(one, "lab") == "run 7 (smoke)"
    assert name_run(other, "lab") == "a run of another group"
    assert name_runs([one, other], None, 9) == "run 7 (smoke), run 8 (soak) and 7 more"
    held = Holder(7, "smoke", "lab", until=datetime(2026, 12, 1, 8, 30, tzinfo=UTC))
    said = "held for run 7 (smoke) after its failure, until 2026-12-01 08:30:00 UTC, or until `proctor cancel 7`"
    assert has_alone(held, "lab") == hold_it([one, held], 2, "lab") == said
    assert "7" not in has_alone(held, "lab-b")


# -- nobody is overtaken --------------------------------------------------------------------------------------------


@dataclass
class Lab:
    """Hosts, runs that wait and runs that hold some, as the lease transactions see them."""

    names: tuple[str, ...]
    away: set[str] = field(default_factory=set)
    waiting: dict[int, tuple[HostRole, ...]] = field(default_factory=dict)
    holding: dict[int, list[tuple[str, bool]]] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    begun: list[int] = field(default_factory=list)

    def hosts(self, run: int) -> list[LeasableHost]:
        held = [(host, alone) for each, hosts in self.holding.items() if each != run for host, alone in hosts]
        return [
            LeasableHost(
                agent=name,
                host=name,
                groups=frozenset({"lab"}),
                hindrance="it is drained" if name in self.away else "",
                away=name in self.away,
                alone="held" if (name, True) in held else "",
                shared="shared" if (name, False) in held else "",
                kept="kept" if self.kept.get(name, run) < run else "",
            )
            for name in self.names
        ]

    def take(self, run: int) -> bool:
        roles = self.waiting[run]
        found = choose_hosts(roles, self.hosts(run))
        if isinstance(found, NotFree):
            self.kept = {host: who for host, who in self.kept.items() if who != run}
            self.kept.update({host: run for host in found.keep if self.kept.get(host, run) >= run})
        if not isinstance(found, Leased):
            assert isinstance(found, NotFree)
            return False
        alone = {role.name: role.exclusive for role in roles}
        self.holding[run] = [(host.host, alone[role]) for role, hosts in found.hosts.items() for host in hosts]
        self.kept = {host: who for host, who in self.kept.items() if who != run}
        del self.waiting[run]
        self.begun.append(run)
        return True

    def look_at(self, run: int) -> None:
        """A run's timer: those who have waited longer go first."""
        if run in self.waiting and isinstance(choose_hosts(self.waiting[run], self.hosts(run)), Leased):
            for elder in [each for each in sorted(self.waiting) if each < run]:
                self.take(elder)
        if run in self.waiting:
            self.take(run)
        self.check()

    def look_again(self) -> None:
        for run in sorted(self.waiting):
            self.take(run)
        self.check()

    def end(self, run: int) -> None:
        del self.holding[run]
        self.look_again()

    def check(self) -> None:
        for name in self.names:
            held = [alone for hosts in self.holding.values() for host, alone in hosts if host == name]
            assert True not in held or held == [True], f"{name} is held alone and by others"


def any_roles(rng: random.Random, names: Iterable[str]) -> tuple[HostRole, ...]:
    wanted = rng.sample(sorted(names), rng.randint(1, 3))
    if rng.random() < 0.3:
        return (HostRole("any", group="lab", count=rng.randint(1, 3), exclusive=rng.random() < 0.6),)
    return tuple(HostRole(f"r{n}", host=host, exclusive=rng.random() < 0.6) for n, host in enumerate(wanted))


@pytest.mark.parametrize("seed", range(40))
def test_nobody_is_overtaken_and_nobody_waits_for_ever(seed: int) -> None:
    """Runs come, hosts go and come back, timers ring in any order. Whoever begins takes nothing that an older one,
    who could have begun just then, was waiting for; and once all hosts are there everybody gets his turn.
    """
    rng = random.Random(seed)
    lab = Lab(("h1", "h2", "h3", "h4"))
    for number in range(1, 60):
        before = set(lab.begun)
        match rng.randrange(7):
            case 0 | 1 | 2:
                lab.waiting[number] = any_roles(rng, lab.names)
                lab.look_at(number)
            case 3 if lab.holding:
                lab.end(rng.choice(sorted(lab.holding)))
            case 4:
                lab.away.add(rng.choice(lab.names))
            case 5 if lab.away:
                lab.away.remove(rng.choice(sorted(lab.away)))
                if lab.waiting:
                    lab.look_at(rng.choice(sorted(lab.waiting)))  # a timer rings before the others are looked at
                lab.look_again()
            case _ if lab.waiting:
                lab.look_at(rng.choice(sorted(lab.waiting)))
        for begun in set(lab.begun) - before:
            for elder in [each for each in lab.waiting if each < begun]:
                taken = lab.holding.pop(begun)
                found = choose_hosts(lab.waiting[elder], lab.hosts(elder))
                lab.holding[begun] = taken
                assert not isinstance(found, Leased), f"{begun} took what {elder} had waited for longer"
    lab.away.clear()
    for _ in range(200):
        lab.look_again()
        if lab.holding:
            lab.end(rng.choice(sorted(lab.holding)))
    assert not lab.waiting, "somebody waits for ever"
