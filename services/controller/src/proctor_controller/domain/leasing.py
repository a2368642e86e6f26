"""Which hosts a run gets for its roles: all of them at once, or none and why not. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from proctor_controller.domain.wants import Role

MAX_TRIES = 20_000


@dataclass(frozen=True, slots=True)
class LeasableHost:
    """An agent as far as a lease needs it. ``hindrance``: why it may get no work now, else empty · ``alone``: another
    run holds it for itself · ``shared``: other runs hold it · ``used``: steps of other runs are alive on it ·
    ``kept``: it is kept free for an older run.
    """

    agent: str
    host: str
    groups: frozenset[str] = frozenset()
    labels: Mapping[str, str] = field(default_factory=dict)
    plugins: frozenset[str] = frozenset()
    hindrance: str = ""
    alone: bool = False
    shared: bool = False
    used: bool = False
    kept: bool = False


@dataclass(frozen=True, slots=True)
class Leased:
    """Hosts by role, in the order of their index."""

    hosts: Mapping[str, tuple[LeasableHost, ...]]


@dataclass(frozen=True, slots=True)
class NotFree:
    """Not now. ``keep``: agents to be kept free for this run meanwhile."""

    why: str
    keep: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NotThere:
    """Never, as long as no other agents are enrolled."""

    why: str


def choose_hosts(roles: Sequence[Role], hosts: Sequence[LeasableHost]) -> Leased | NotFree | NotThere:
    """Hosts for every role; roles share a host only where there are not enough, and none of them wants it alone."""
    fitting = {role.name: [host for host in hosts if fits(role, host)] for role in roles}
    for role in roles:
        found = len(fitting[role.name])
        if found < role.count:
            return NotThere(f"hosts.{role.name}: {describe(role)}: {role.count} wanted, there are {found}")
    free = {role.name: [host for host in fitting[role.name] if not _hindered(role, host)] for role in roles}
    for role in roles:
        if len(free[role.name]) < role.count:
            return NotFree(_why(role, fitting[role.name]), _to_keep(roles, fitting))
    ordered = sorted(roles, key=lambda role: len(free[role.name]) - role.count)
    for sharing in (False, True):
        tries = [MAX_TRIES]
        picked = _pick(ordered, free, {}, sharing=sharing, tries=tries)
        if picked is not None:
            return Leased({role.name: picked[role.name] for role in roles})
    return NotFree("hosts: the roles want more hosts than are free at once", _to_keep(roles, fitting))


def fits(role: Role, host: LeasableHost) -> bool:
    """Whether the host is one that the role means."""
    return (
        (role.host is None or role.host == host.host)
        and (role.group is None or role.group in host.groups)
        and all(host.labels.get(name) == value for name, value in (role.labels or {}).items())
        and (role.plugin is None or role.plugin in host.plugins)
    )


def describe(role: Role) -> str:
    """The role's hosts in words."""
    words = [f"host {role.host}"] if role.host else []
    words += [f"of group {role.group}"] if role.group else []
    words += ["with labels " + ", ".join(f"{n}={v}" for n, v in sorted(role.labels.items()))] if role.labels else []
    words += [f"with plugin {role.plugin}"] if role.plugin else []
    return "hosts " + " ".join(words) if words and not role.host else " ".join(words) or "any host"


def _hindered(role: Role, host: LeasableHost) -> str:
    if host.hindrance:
        return host.hindrance
    if host.alone:
        return "another run holds it alone"
    if host.kept:
        return "it is kept for an older run"
    if role.exclusive and host.shared:
        return "other runs hold it"
    if role.exclusive and host.used:
        return "steps of other runs are under way on it"
    return ""


def _why(role: Role, fitting: Sequence[LeasableHost]) -> str:
    held = [(host, _hindered(role, host)) for host in fitting]
    first = next(f"{host.host}: {why}" for host, why in held if why)
    free = sum(not why for _, why in held)
    return f"hosts.{role.name}: {role.count} wanted, {free} of {len(fitting)} may be had ({first})"


def _to_keep(roles: Sequence[Role], fitting: Mapping[str, Sequence[LeasableHost]]) -> tuple[str, ...]:
    """The hosts that this run waits for: those that others would soonest let go of."""
    kept: dict[str, None] = {}
    for role in roles:
        wanted = sorted(
            (host for host in fitting[role.name] if not host.hindrance),
            key=lambda host: (host.alone, host.shared, host.used, host.host),
        )
        for host in [host for host in wanted if host.agent not in kept][: role.count]:
            kept[host.agent] = None
    return tuple(kept)


def _pick(
    roles: Sequence[Role],
    free: Mapping[str, Sequence[LeasableHost]],
    taken: Mapping[str, bool],
    *,
    sharing: bool,
    tries: list[int],
) -> dict[str, tuple[LeasableHost, ...]] | None:
    """Hosts for the roles, one role after the other, going back where it does not work out."""
    if not roles:
        return {}
    role, rest = roles[0], roles[1:]

    def may_have(host: LeasableHost) -> bool:
        return host.agent not in taken or (sharing and not role.exclusive and not taken[host.agent])

    able = [host for host in free[role.name] if may_have(host)]
    for start in range(len(able) - role.count + 1):
        tries[0] -= 1
        if tries[0] < 0:
            return None
        mine = tuple(able[start : start + role.count])
        further = _pick(
            rest, free, {**taken, **{host.agent: role.exclusive for host in mine}}, sharing=sharing, tries=tries
        )
        if further is not None:
            return {role.name: mine, **further}
    return None
