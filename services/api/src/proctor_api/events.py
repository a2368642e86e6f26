"""A run's state changes, cached for its viewers: taken from notifications, gaps filled by asking a controller."""

from collections.abc import Awaitable, Callable, Iterable

from proctor_common.messages.pages import EventsPage
from proctor_common.messages.views import EventView
from proctor_common.states import RunState

KEPT = 2000
"""Events of a run that are cached at most."""


class EventRing:
    """The newest events of one run, without a gap between them; ``seq`` counts from 1."""

    def __init__(self, fetch: Callable[[int], Awaitable[EventsPage]]) -> None:
        self._fetch = fetch
        self._kept: list[EventView] = []
        self._announced = 0
        self._asked = False

    @property
    def last(self) -> int:
        """``seq`` of the newest cached event; 0 if there is none."""
        return self._kept[-1].seq if self._kept else 0

    @property
    def ended(self) -> bool:
        """Whether the run's last event is known."""
        return bool(self._kept) and self._kept[-1].kind == "run" and self._kept[-1].new == RunState.FINISHED.value

    def add(self, events: Iterable[EventView]) -> None:
        """Cache events that follow the cached ones; of others remember only that they exist."""
        for event in events:
            self._announced = max(self._announced, event.seq)
            if event.seq == self.last + 1 and (self._kept or event.seq == 1):
                self._kept.append(event)
        if len(self._kept) > KEPT:
            del self._kept[: len(self._kept) - KEPT]

    def known(self, seq: int) -> list[EventView] | None:
        """Cached events after ``seq``; None if a controller would have to be asked."""
        if self._kept and seq + 1 < self._kept[0].seq:
            return None
        known = self._slice(seq)
        if known or (self._asked and self._announced <= max(seq, self.last)):
            return known
        return None

    async def after(self, seq: int, *, ask: bool = False) -> list[EventView]:
        """Events after ``seq``, in order, perhaps not all. ``ask``: ask a controller even if none was announced.

        Raises ProctorError.
        """
        known = self.known(seq)
        if known or (known is not None and not ask):
            return known
        page = await self._fetch(seq)
        self._asked = True
        items = [event for event in page.items if event.seq > seq]
        if not items:
            # An announced event does not exist: do not ask for it again.
            self._announced = min(self._announced, max(seq, self.last))
        elif page.next is not None:
            self._announced = max(self._announced, items[-1].seq + 1)
        if items and (not self._kept or items[-1].seq > self.last):
            connects = bool(self._kept) and items[0].seq <= self.last + 1
            self._kept = [*self._kept, *(e for e in items if e.seq > self.last)] if connects else items
            del self._kept[: max(0, len(self._kept) - KEPT)]
        return items

    def _slice(self, seq: int) -> list[EventView]:
        if not self._kept or seq + 1 < self._kept[0].seq or seq >= self.last:
            return []
        return self._kept[seq + 1 - self._kept[0].seq :]
