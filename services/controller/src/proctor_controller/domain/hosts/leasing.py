"""Which hosts a run gets for its roles: all at once, or none, with the reason. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from proctor_controller.domain.hosts.matching import match_all
from proctor_controller.domain.hosts.requirements import HostRole

MAX_TRIES = 20_000
SHOWN = 3


@dataclass(frozen=True, slots=True)
class LeasableHost:
    """An agent as candidate for a lease. A text is empty, or says what keeps the run from the host."""

    agent: str
    host: str
    groups: frozenset[str] = frozenset()
    labels: Mapping[str, str] = field(default_factory=dict)
    plugins: frozenset[str] = frozenset()
    hindrance: str = ""
    """It may get no work now."""
    away: bool = False
    """The hindrance may last: it is drained, or its agent is gone."""
    alone: str = ""
    """Another run holds it exclusively."""
    shared: str = ""
    """Other runs hold it."""
    used: str = ""
    """Steps of other runs are alive on it."""
    kept: str = ""
    """It is reserved for an older run."""
    methods: frozenset[str] = frozenset()
    """Its methods among those that the run's roles need."""
    targets: frozenset[str] = frozenset()
    registered: bool = True
    """Whether its methods are known; until then it may have any."""


@dataclass(frozen=True, slots=True)
class Leased:
    """Hosts by role, ordered by index."""

    hosts: Mapping[str, tuple[LeasableHost, ...]]


@dataclass(frozen=True, slots=True)
class NotFree:
    """The hosts are not free now. ``keep``: agents to be reserved for this run."""

    why: str
    keep: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NotThere:
    """There are too few suitable hosts, unless more agents are enrolled."""

    why: str


def choose_hosts(roles: Sequence[HostRole], hosts: Sequence[LeasableHost]) -> Leased | NotFree | NotThere:
    """Hosts for every role; roles share a host only if there are too few, and if none of them wants it exclusively."""
    fitting = {role.name: [host for host in hosts if fits(role, host)] for role in roles}
    for role in roles:
        found = len(fitting[role.name])
        if found < role.count:
            return NotThere(f"hosts.{role.name}: {describe(role)}: {role.count} wanted, there are {found}")
    if want_too_many(roles, {name: [host.agent for host in found] for name, found in fitting.items()}):
        return NotThere("hosts: the roles together want more hosts for themselves than there are")
    free = {role.name: [host for host in fitting[role.name] if not _hindered(role, host)] for role in roles}
    for role in roles:
        if len(free[role.name]) < role.count:
            return NotFree(_why(role, fitting[role.name]), _to_keep(roles, fitting))
    picked = _match(roles, free)
    if picked is not None:
        return Leased(picked)
    return NotFree(_why_together(roles, fitting), _to_keep(roles, fitting))


def _match(
    roles: Sequence[HostRole], free: Mapping[str, Sequence[LeasableHost]]
) -> dict[str, tuple[LeasableHost, ...]] | None:
    """Hosts for all roles, from those that suit each; None if they are not enough."""
    agents = {host.agent: host for found in free.values() for host in found}
    places = [(role, [host.agent for host in free[role.name]]) for role in roles for _ in range(role.count)]
    matched = match_all([options for _, options in places])
    if matched is not None:
        picked: dict[str, list[LeasableHost]] = {role.name: [] for role in roles}
        for (role, _), agent in zip(places, matched, strict=True):
            picked[role.name].append(agents[agent])
        return {name: tuple(sorted(found, key=lambda host: host.host)) for name, found in picked.items()}
    ordered = sorted(roles, key=lambda role: len(free[role.name]) - role.count)
    shared = _pick(ordered, free, {}, tries=[MAX_TRIES])
    return None if shared is None else {role.name: shared[role.name] for role in roles}


def want_too_many(roles: Sequence[HostRole], fitting: Mapping[str, Sequence[str]]) -> bool:
    """Whether there are too few hosts even if nobody else held any. ``fitting``: agents by role."""
    alone = [role for role in roles if role.exclusive]
    return any(
        match_all([fitting[r.name] for r in together for _ in range(r.count)]) is None
        for together in ([*alone], *([*alone, role] for role in roles if alone and not role.exclusive))
    )


def fits(role: HostRole, host: LeasableHost) -> bool:
    """Whether the host has everything that the role asks for; if it is not registered, it may have any method."""
    return (
        (role.host is None or role.host == host.host)
        and (role.group is None or role.group in host.groups)
        and all(host.labels.get(name) == value for name, value in (role.labels or {}).items())
        and (not host.registered or _has_all(role, host))
    )


def _has_all(role: HostRole, host: LeasableHost) -> bool:
    return (
        (role.plugin is None or role.plugin in host.plugins)
        and host.methods.issuperset(role.uses)
        and host.targets.issuperset(role.targets)
    )


def may_mean(roles: Sequence[HostRole], group: str | None, hosts: Sequence[LeasableHost]) -> bool:
    """Whether a run of this group (None: of any) could use one of these hosts, whatever methods they have."""
    return any(
        (role.host is None or role.host == host.host)
        and (role.group is None or role.group in host.groups)
        and all(host.labels.get(name) == value for name, value in (role.labels or {}).items())
        for host in hosts
        if group is None or group in host.groups
        for role in roles
    )


def describe(role: HostRole) -> str:
    """The role's hosts as text."""
    words = [f"host {role.host}"] if role.host else []
    words += [f"of group {role.group}"] if role.group else []
    words += ["with labels " + ", ".join(f"{n}={v}" for n, v in sorted(role.labels.items()))] if role.labels else []
    words += [f"with plugin {role.plugin}"] if role.plugin else []
    needed = [*role.uses, *(f"target {name}" for name in role.targets)]
    words += [f"for steps that need {', '.join(needed)}"] if needed else []
    return "hosts " + " ".join(words) if words and not role.host else " ".join(words) or "any host"


def _hindered(role: HostRole, host: LeasableHost) -> str:
    exclusive = (host.shared or host.used) if role.exclusive else ""
    return host.hindrance or host.alone or host.kept or exclusive


def _why(role: HostRole, fitting: Sequence[LeasableHost]) -> str:
    held = [f"{host.host}: {why}" for host in fitting if (why := _hindered(role, host))]
    free = len(fitting) - len(held)
    return f"hosts.{role.name}: {role.count} wanted, {free} of {len(fitting)} may be had ({_some(held)})"


def _why_together(roles: Sequence[HostRole], fitting: Mapping[str, Sequence[LeasableHost]]) -> str:
    held = [f"{host.host}: {why}" for role in roles for host in fitting[role.name] if (why := _hindered(role, host))]
    why = _some(list(dict.fromkeys(held)))
    return "hosts: the roles want more hosts than are free at once" + (f" ({why})" if why else "")


def _some(held: Sequence[str]) -> str:
    more = len(held) - SHOWN
    return "; ".join(held[:SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _to_keep(roles: Sequence[HostRole], fitting: Mapping[str, Sequence[LeasableHost]]) -> tuple[str, ...]:
    """The hosts to reserve for this run: those with the fewest holders, and those that are away, so that no later run
    takes them when they come back. If it cannot begin without hosts that are away, it reserves only those: others would
    be idle for days.
    """
    there = {role.name: [host for host in fitting[role.name] if not host.away] for role in roles}
    kept: dict[str, None] = {}
    if _match(roles, there) is not None:
        for role in roles:
            wanted = sorted(
                there[role.name],
                key=lambda host: (
                    bool(host.hindrance),
                    bool(host.alone),
                    bool(host.shared),
                    bool(host.used),
                    host.host,
                ),
            )
            for host in [host for host in wanted if host.agent not in kept][: role.count]:
                kept[host.agent] = None
    kept.update({host.agent: None for role in roles for host in fitting[role.name] if host.away})
    return tuple(kept)


def _pick(
    roles: Sequence[HostRole],
    free: Mapping[str, Sequence[LeasableHost]],
    taken: Mapping[str, bool],
    *,
    tries: list[int],
) -> dict[str, tuple[LeasableHost, ...]] | None:
    """Hosts for the roles, one role after another, with backtracking; roles that are not exclusive share hosts."""
    if not roles:
        return {}
    role, rest = roles[0], roles[1:]

    def may_have(host: LeasableHost) -> bool:
        return host.agent not in taken or not (role.exclusive or taken[host.agent])

    able = [host for host in free[role.name] if may_have(host)]
    for start in range(len(able) - role.count + 1):
        tries[0] -= 1
        if tries[0] < 0:
            return None
        mine = tuple(able[start : start + role.count])
        further = _pick(rest, free, {**taken, **{host.agent: role.exclusive for host in mine}}, tries=tries)
        if further is not None:
            return {role.name: mine, **further}
    return None
