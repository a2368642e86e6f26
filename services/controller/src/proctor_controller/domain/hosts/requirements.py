"""What a run needs as a whole: hosts, volumes, a concurrency slot, cleanup, outputs, a webhook. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

QUEUE_S = 86_400.0
CLEANUP_S = 300.0


class Rollback(StrEnum):
    """After which results of a run the rollbacks of its passed steps run."""

    NEVER = "never"
    ON_FAILURE = "on_failure"
    ON_CANCEL = "on_cancel"
    ALWAYS = "always"


class WhenFull(StrEnum):
    """What happens to a run if all its concurrency slots are taken."""

    QUEUE = "queue"
    CANCEL_OLDEST = "cancel_oldest"
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class HostRole:
    """``count`` hosts under one name, each with the given group, labels, name and plugin."""

    name: str
    group: str | None = None
    labels: Mapping[str, str] | None = None
    host: str | None = None
    plugin: str | None = None
    count: int = 1
    exclusive: bool = False
    uses: tuple[str, ...] = ()
    """Methods (plugin.method) of the steps on this role; ``targets`` likewise."""
    targets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VolumeRequirement:
    """``count`` volumes of one type under one name. ``pool``: prefer, require or bypass; ``on_end``: delete, retain."""

    name: str
    type: str
    count: int = 1
    size_gb: int | None = None
    pool: str = "prefer"
    on_end: str = "delete"


@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most ``max`` runs with this ``key`` run at the same time."""

    key: str
    max: int = 1
    when_full: WhenFull = WhenFull.QUEUE


@dataclass(frozen=True, slots=True)
class Hold:
    """After a failure the run keeps the hosts of these roles for ``for_s`` seconds."""

    roles: tuple[str, ...]
    for_s: float


@dataclass(frozen=True, slots=True)
class Webhook:
    """The call at the run's end. ``signed``: with a secret, which is only among the run's sealed values."""

    url: str
    signed: bool = False


@dataclass(frozen=True, slots=True)
class Requirements:
    """``outputs``: templates of the run's outputs; ``outputs_refs``: the nodes that they read. Times in seconds."""

    roles: tuple[HostRole, ...] = ()
    volumes: tuple[VolumeRequirement, ...] = ()
    concurrency: Concurrency | None = None
    queue_s: float = QUEUE_S
    cleanup_s: float = CLEANUP_S
    rollback: Rollback = Rollback.NEVER
    hold: Hold | None = None
    outputs: Mapping[str, Any] = field(default_factory=dict)
    outputs_refs: tuple[str, ...] = ()
    webhook: Webhook | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the run may begin at once: it waits for no host, volume or concurrency slot."""
        return not self.roles and not self.volumes and self.concurrency is None

    def to_json(self) -> dict[str, Any]:
        """The stored form, without members that have their default."""
        stored: dict[str, Any] = {}
        if self.roles:
            stored["roles"] = [_fields(role) for role in self.roles]
        if self.volumes:
            stored["volumes"] = [_fields(volume) for volume in self.volumes]
        if self.concurrency is not None:
            stored["concurrency"] = _fields(self.concurrency)
        if self.queue_s != QUEUE_S:
            stored["queue_s"] = self.queue_s
        if self.cleanup_s != CLEANUP_S:
            stored["cleanup_s"] = self.cleanup_s
        if self.rollback is not Rollback.NEVER:
            stored["rollback"] = self.rollback.value
        if self.hold is not None:
            stored["hold"] = {"roles": list(self.hold.roles), "for_s": self.hold.for_s}
        if self.outputs:
            stored["outputs"] = dict(self.outputs)
        if self.outputs_refs:
            stored["outputs_refs"] = list(self.outputs_refs)
        if self.webhook is not None:
            stored["webhook"] = _fields(self.webhook)
        return stored


def requirements_of(stored: Mapping[str, Any]) -> Requirements:
    """The requirements in the output of ``Requirements.to_json``."""
    concurrency, hold, webhook = stored.get("concurrency"), stored.get("hold"), stored.get("webhook")
    return Requirements(
        roles=tuple(_role(role) for role in stored.get("roles", ())),
        volumes=tuple(VolumeRequirement(**volume) for volume in stored.get("volumes", ())),
        concurrency=None
        if concurrency is None
        else Concurrency(**{**concurrency, "when_full": WhenFull(concurrency["when_full"])}),
        queue_s=stored.get("queue_s", QUEUE_S),
        cleanup_s=stored.get("cleanup_s", CLEANUP_S),
        rollback=Rollback(stored.get("rollback", Rollback.NEVER)),
        hold=None if hold is None else Hold(tuple(hold["roles"]), hold["for_s"]),
        outputs=stored.get("outputs", {}),
        outputs_refs=tuple(stored.get("outputs_refs", ())),
        webhook=None if webhook is None else Webhook(**webhook),
    )


def _role(stored: Mapping[str, Any]) -> HostRole:
    return HostRole(**{**stored, "uses": tuple(stored.get("uses", ())), "targets": tuple(stored.get("targets", ()))})


def _fields(part: HostRole | VolumeRequirement | Concurrency | Webhook) -> dict[str, Any]:
    return {name: getattr(part, name) for name in part.__slots__}
