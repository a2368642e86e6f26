"""How long, and how often, the api asks the controllers."""

import pytest

from proctor_api.controller_client import LARGE, SELF, ControllerClient
from proctor_common.bus import BusTimeout
from proctor_common.errors import ProctorError
from proctor_common.messages.calls.plans import VALIDATE_PLAN, PlanValidate


class Silent:
    """A bus on which nobody answers."""

    def __init__(self) -> None:
        self.waited: list[float] = []

    async def request(self, subject: str, payload: bytes, *, timeout: float) -> bytes:
        self.waited.append(timeout)
        raise BusTimeout(f"no answer on {subject}")


async def test_a_large_plan_is_given_time_instead_of_tries() -> None:
    for size, waited in ((100, [2.5] * 4), (LARGE, [10.0] * 2)):
        bus = Silent()
        with pytest.raises(ProctorError):
            await ControllerClient(bus, 10.0).ask(VALIDATE_PLAN, SELF, PlanValidate(plan="x" * size))  # type: ignore[arg-type]
        assert bus.waited == waited
