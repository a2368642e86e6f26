"""What the engine goes by: seconds, bytes and counts."""

from dataclasses import dataclass, field
from pathlib import Path

from proctor_controller.domain.runs.decision import Policy


@dataclass(frozen=True)
class EngineSettings:
    """The same for all runs."""

    policy: Policy = field(default_factory=Policy)
    """What decisions go by."""
    order_timeout: float = 5.0
    """How long to wait for the answer to one order."""
    short_step: float = 0.15
    """How long an accepted step may end before it is written down as running."""
    order_sends: int = 2
    """How often to send an order before the watchdog takes over."""
    queue_timeout: float = 86_400.0
    """How long a test case may wait for a slot."""
    default_timeout: float = 1800.0
    """How long a step may take that says nothing else."""
    default_grace: float = 10.0
    """How long a step may take to end that is stopped, if it says nothing else."""
    attempt_log_limit: int = 2 * 1024**3
    """Bytes of log of one attempt."""
    secrets_dir: Path | None = None
    """A folder with one file a secret, which plans may refer to; None: there are none."""

    def run_timeout(self, work: float) -> float:
        """How long a run may take whose steps may take ``work`` seconds: they may wait for a slot as well."""
        policy = self.policy
        return self.queue_timeout + work + policy.lost_grace_s + policy.cancel_confirm_s + policy.timeout_margin_s
