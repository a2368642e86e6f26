"""What the parts of the agent's process share, built once in main.py."""

from dataclasses import dataclass
from pathlib import Path

from proctor_agent.attempt import Workbench
from proctor_agent.attempts.debts import Debts
from proctor_agent.attempts.ends import UnconfirmedEnds
from proctor_agent.attempts.journal import Journal
from proctor_agent.log.spool import Spool
from proctor_common.bus import Bus


@dataclass(frozen=True, slots=True)
class AgentContext:
    """The parts of the process by name."""

    agent: str
    """This agent's id."""
    bus: Bus
    journal: Journal
    spool: Spool
    workbench: Workbench
    ends: UnconfirmedEnds
    debts: Debts
    default_target: str | None
    folder: Path
    """Where attempts have their private scratch folders."""
