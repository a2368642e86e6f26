"""Processes that may be left after a stop that could not be confirmed. They are ended in the background; until then
their target takes no work of other runs.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from proctor_agent.attempt import ProcessGroup, Workbench

log = structlog.get_logger(__name__)

LONGEST_S = 600.0
"""A target that was out of reach for so long gets work again."""
PAUSE_S = 2.0
LOOK_S = 15.0
MOST_REPORTED = 20
MOST_NAMED = 5


@dataclass(frozen=True, slots=True, eq=False)
class Debt:
    """What an attempt may have left on a target."""

    run: str
    marker: str
    target: str
    groups: tuple[ProcessGroup, ...]
    until: float
    left: tuple[str, ...] | None = None
    """Processes that are known to be there; None: unknown whether there are any."""

    def __str__(self) -> str:
        if self.left is not None:
            return f"{self.marker}: {describe_left(self.target, self.left)}"
        return f"what {self.marker} left on target {self.target} is not known to be gone"


def describe_left(target: str, left: Sequence[str]) -> str:
    """Processes that could not be ended, as a sentence."""
    some = ", ".join(left[:MOST_NAMED]) + (", …" if len(left) > MOST_NAMED else "")
    count = f"{len(left)} process{'es' if len(left) != 1 else ''}" if left else "something"
    return f"{count} could not be ended on target {target}" + (f": {some}" if some else "")


class Debts:
    """All of this agent. Use from its main loop."""

    def __init__(self, workbench: Workbench) -> None:
        self._workbench = workbench
        self._open: dict[Debt, asyncio.Task[None]] = {}

    @property
    def remains(self) -> tuple[str, ...]:
        """Sentences on what may be left; may be read in another thread."""
        return tuple(str(debt) for debt in list(self._open)[:MOST_REPORTED])

    def owe(
        self, run: str, marker: str, target: str, groups: Sequence[ProcessGroup], left: Sequence[str] | None = None
    ) -> None:
        """Report ``left`` (None: whatever the attempt may have left there) until it is gone."""
        until = asyncio.get_running_loop().time() + LONGEST_S
        debt = Debt(run, marker, target, tuple(groups), until, None if left is None else tuple(left))
        work = self._make_up(debt) if left is None else self._watch(debt)
        self._open[debt] = asyncio.create_task(work, name=f"debt of {marker}")

    def against(self, run: str, target: str | None) -> str:
        """Why the target takes no work of this run now; empty if it does."""
        for debt in self._open:
            if debt.left is None and debt.target == target and debt.run != run:
                left = max(0.0, debt.until - asyncio.get_running_loop().time())
                return f"{debt}; it is looked for, {left:.0f} s more at most"
        return ""

    async def close(self) -> None:
        """Stop looking."""
        tasks = list(self._open.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=5)

    async def _watch(self, debt: Debt) -> None:
        """Look from time to time whether what is left has gone."""
        try:
            left: Sequence[str] | None = debt.left
            while left != []:
                await asyncio.sleep(LOOK_S)
                left = await self._workbench.find_left(debt.target, debt.groups, debt.marker)
        finally:
            self._open.pop(debt, None)

    async def _make_up(self, debt: Debt) -> None:
        gone = None
        try:
            async with asyncio.timeout_at(debt.until):
                while gone is None:
                    await asyncio.sleep(PAUSE_S)
                    gone = await self._workbench.stop_tree(debt.target, debt.groups, debt.marker, 0.0)
        except TimeoutError:
            pass
        finally:
            self._open.pop(debt, None)
        log.warning("bring_down_made_up", attempt=debt.marker, target=debt.target, tree_gone=gone)
