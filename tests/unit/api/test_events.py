"""A run's state changes: kept without a hole, asked for where one is, in pages that connect."""

from datetime import UTC, datetime

import pytest

from proctor_api.events import KEPT, EventRing
from proctor_common.messages.pages import EventsPage
from proctor_common.messages.views import EventView

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def event(seq: int, new: str = "running") -> EventView:
    return EventView(seq=seq, run="r", kind="run", new=new, at=NOW)


class Source:
    """A controller's table of events; ``asked``: behind which number."""

    def __init__(self, count: int, page: int = 1000) -> None:
        self.events = [event(seq) for seq in range(1, count + 1)]
        self.page = page
        self.asked: list[int] = []

    async def fetch(self, after: int) -> EventsPage:
        self.asked.append(after)
        found = [e for e in self.events if e.seq > after]
        return EventsPage(items=found[: self.page], next="more" if len(found) > self.page else None)


async def read(ring: EventRing, seq: int) -> list[int]:
    """All that a viewer behind ``seq`` gets."""
    found: list[int] = []
    while got := await ring.after(seq):
        found += [e.seq for e in got]
        seq = found[-1]
    return found


async def test_the_first_reader_asks_and_the_next_one_need_not() -> None:
    source = Source(5)
    ring = EventRing(source.fetch)
    assert ring.known(0) is None
    assert await read(ring, 0) == [1, 2, 3, 4, 5]
    assert await read(ring, 2) == [3, 4, 5]
    assert source.asked == [0]


async def test_what_is_announced_without_a_hole_needs_no_question() -> None:
    source = Source(2)
    ring = EventRing(source.fetch)
    await ring.after(0)
    ring.add([event(2), event(3), event(4)])
    assert await read(ring, 2) == [3, 4]
    assert source.asked == [0]


async def test_a_hole_is_asked_for_once() -> None:
    source = Source(2)
    ring = EventRing(source.fetch)
    await ring.after(0)
    source.events += [event(3), event(4)]
    ring.add([event(4)])
    assert ring.known(2) is None
    assert await read(ring, 2) == [3, 4]
    assert source.asked == [0, 2]


async def test_what_was_announced_and_is_not_there_is_not_asked_for_again_and_again() -> None:
    source = Source(1)
    ring = EventRing(source.fetch)
    await ring.after(0)
    ring.add([event(9)])
    assert await ring.after(1) == []
    assert ring.known(1) == []


@pytest.mark.parametrize("start", [0, 1, 500, KEPT + 400])
async def test_a_reader_of_any_place_gets_all_of_a_long_history(start: int) -> None:
    source = Source(KEPT + 500, page=100)
    ring = EventRing(source.fetch)
    await read(ring, KEPT)
    assert await read(ring, start) == list(range(start + 1, KEPT + 501))


async def test_the_end_is_known_by_its_event() -> None:
    ring = EventRing(Source(0).fetch)
    ring.add([event(1), event(2, "finished")])
    assert ring.ended
