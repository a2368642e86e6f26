"""What the engine goes by."""

from dataclasses import dataclass, field
from pathlib import Path

from proctor_controller.domain.runs.decision import Policy


@dataclass(frozen=True)
class EngineSettings:
    """Seconds, bytes and counts.

    ``order_timeout``: how long to wait for the answer to one order · ``order_sends``: how often to send it before
    the watchdog takes over · ``short_step``: how long an accepted step may end before it is written down as running ·
    ``queue_timeout``: how long a test case may wait for a slot · ``secrets_dir``: a folder with one file a secret that
    plans may refer to.
    """

    policy: Policy = field(default_factory=Policy)
    order_timeout: float = 5.0
    short_step: float = 0.15
    order_sends: int = 2
    queue_timeout: float = 86_400.0
    default_timeout: float = 1800.0
    default_grace: float = 10.0
    attempt_log_limit: int = 2 * 1024**3
    max_forged: int = 10
    secrets_dir: Path | None = None

    def run_timeout(self, work: float) -> float:
        """How long a run may take whose steps may take ``work`` seconds: they may wait for a slot as well."""
        policy = self.policy
        return self.queue_timeout + work + policy.lost_grace_s + policy.cancel_confirm_s + policy.timeout_margin_s
