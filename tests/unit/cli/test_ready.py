"""When an agent counts as ready for `proctor up`."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from proctor_cli.local.system import is_ready

START = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def _agent(seconds: float = 1.0, **other: Any) -> dict[str, Any]:
    beat = (START + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")
    return {"state": "online", "ready": True, "plugins": {"p": {}}, "last_heartbeat": beat, "draining": False, **other}


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        (_agent(), True),
        (None, False),
        # What the database still says of the agent's former life is not enough.
        (_agent(-1), False),
        (_agent(last_heartbeat=None), False),
        (_agent(ready=False), False),
        (_agent(plugins={}), False),
        # Drained on purpose: nobody waits for it to get work.
        (_agent(ready=False, draining=True), True),
        (_agent(ready=False, draining=True, state="lost"), False),
    ],
)
def test_ready(agent: dict[str, Any] | None, expected: bool) -> None:
    assert is_ready(agent, START) is expected
