"""An agent as the controller knows it, and whether a process may act as that agent. Pure.

``instance`` is new at each start of the agent's process. Two processes with one key mean a restart, or a cloned
machine.
"""

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from proctor_common.states import AgentState

MISSED_BEATS = 3
"""An instance that missed this many heartbeats may be replaced by another one."""
MAX_FORGED = 10
"""Reports about attempts that it was never given, after which an agent is disconnected."""


@dataclass(frozen=True, slots=True)
class Agent:
    """One row of the agents, with its groups. Times by the database's clock."""

    id: str
    number: int
    host: str
    public_key: str
    state: AgentState
    draining: bool
    labels: dict[str, str]
    boot_id: str
    instance: str | None
    slots: int
    plugins: dict[str, Any]
    load_errors: dict[str, str]
    targets: dict[str, Any]
    default_target: str | None
    version: str
    registered_at: datetime | None
    leftovers: bool
    last_heartbeat: datetime | None
    rival: str | None
    rival_at: datetime | None
    forged: int
    revoked_at: datetime | None
    revoked_reason: str
    groups: list[str] = field(default_factory=list)
    used_slots: int = 0
    leases: int = 0
    remains: list[str] = field(default_factory=list)

    @property
    def registered(self) -> bool:
        """Whether a process has registered its plugins and targets."""
        return self.instance is not None

    def reason(self) -> str:
        """Why it gets no work; empty if it may get some."""
        match self.state:
            case AgentState.REMOVED:
                return self.revoked_reason or "removed"
            case AgentState.ENROLLED:
                return "it has not connected yet"
            case AgentState.SUSPECT:
                return "its heartbeats stopped a moment ago"
            case AgentState.LOST:
                return "its heartbeats stopped"
        if not self.registered:
            return "it has not said yet which plugins it has"
        if self.draining:
            return "it is drained"
        if self.leftovers:
            return "attempts that were given up may still run on its targets"
        return ""

    def warning(self) -> str:
        """What an operator should know although it gets work; empty if nothing."""
        if self.rival is not None:
            return f"a second process speaks with its key (a cloned machine?): instance {self.rival} was refused"
        return "; ".join(self.remains)


_INSTANCE = re.compile(r"^[A-Za-z0-9-]{1,64}\Z")


def is_instance(text: str) -> bool:
    """Whether a text can name an instance."""
    return _INSTANCE.match(text) is not None


class Claim(StrEnum):
    """The verdict on an instance that wants to act as an agent."""

    SAME = "same"
    REPLACES = "replaces"
    RIVAL = "rival"


def judge_instance(
    present: str | None,
    claims: str,
    *,
    last_heartbeat: datetime | None,
    now: datetime,
    heartbeat: timedelta,
    present_connected: bool | None,
) -> Claim:
    """Whether an instance may act as the agent.

    ``present_connected``: whether the present instance still has a connection to the bus; None if that is unknown. A
    new instance replaces the present one if that one's connection is closed or it missed three heartbeats; otherwise it
    is refused as a rival.
    """
    if present == claims:
        return Claim.SAME
    if present is None or present_connected is False or last_heartbeat is None:
        return Claim.REPLACES
    if now - last_heartbeat >= MISSED_BEATS * heartbeat:
        return Claim.REPLACES
    return Claim.RIVAL
