"""Which instance may speak as an agent, and why an agent gets no work."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from proctor_common.states import AgentState
from proctor_controller.domain.hosts.agent import Agent, Claim, judge_instance

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BEAT = timedelta(seconds=5)


@pytest.mark.parametrize(
    ("present", "silence", "connected", "claim"),
    [
        (None, None, None, Claim.REPLACES),
        ("a", 3600, False, Claim.SAME),
        ("b", 1, True, Claim.RIVAL),
        ("b", 1, None, Claim.RIVAL),
        ("b", 1, False, Claim.REPLACES),
        ("b", 14.9, True, Claim.RIVAL),
        ("b", 15, True, Claim.REPLACES),
        ("b", 15, None, Claim.REPLACES),
        ("b", None, True, Claim.REPLACES),
        ("b", -5, True, Claim.RIVAL),
    ],
)
def test_an_instance_is_judged(
    present: str | None, silence: float | None, connected: bool | None, claim: Claim
) -> None:
    last = None if silence is None else NOW - timedelta(seconds=silence)
    judged = judge_instance(present, "a", last_heartbeat=last, now=NOW, heartbeat=BEAT, present_connected=connected)
    assert judged is claim


def agent(**changes: Any) -> Agent:
    given: dict[str, Any] = dict.fromkeys(Agent.__dataclass_fields__)
    given |= {"state": AgentState.ONLINE, "instance": "i", "draining": False, "leftovers": False}
    given |= {"revoked_reason": "", "remains": []}
    return Agent(**{**given, **changes})


def test_an_agent_says_why_it_gets_no_work() -> None:
    assert agent().reason() == ""
    reasons = [
        agent(state=AgentState.ENROLLED).reason(),
        agent(state=AgentState.SUSPECT).reason(),
        agent(state=AgentState.LOST).reason(),
        agent(state=AgentState.REMOVED).reason(),
        agent(instance=None).reason(),
        agent(draining=True).reason(),
        agent(leftovers=True).reason(),
    ]
    assert all(reasons)
    assert len(set(reasons)) == len(reasons)
    assert agent(state=AgentState.REMOVED, revoked_reason="cut off").reason() == "cut off"
    assert agent().warning() == ""
    assert "other" in agent(rival="other").warning()
