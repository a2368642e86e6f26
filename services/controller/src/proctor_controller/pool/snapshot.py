"""The pool's last-read rows for metrics, so that reading metrics costs no query."""

from dataclasses import dataclass, field

from proctor_controller.db.pool.jobs import Job
from proctor_controller.db.pool.pools import PoolRow
from proctor_controller.domain.volumes.breaker import Breaker


@dataclass
class Snapshot:
    """The rows of pools, breakers and jobs."""

    pools: list[PoolRow] = field(default_factory=list)
    breakers: dict[str, Breaker] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
