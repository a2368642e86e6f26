"""What `proctor agents` calls an agent that is to be given no more work."""

import pytest

from proctor_cli.commands.agents import _state


@pytest.mark.parametrize(
    ("used", "leases", "word"), [(0, 0, "drained"), (1, 0, "draining"), (0, 1, "draining"), (2, 1, "draining")]
)
def test_an_agent_is_drained_once_nothing_goes_on_there(used: int, leases: int, word: str) -> None:
    """Between two steps of a run that has leased it no slot is busy, and the next one will be."""
    agent = {"state": "online", "draining": True, "used_slots": used, "leases": leases}
    assert _state(agent) == word
    assert _state({**agent, "draining": False}) == "online"
    assert _state({**agent, "state": "lost"}) == "lost, drained"
