"""Chunks into order: each once, by seq, whatever the stream holds twice or late, from any cursor."""

import random
from collections.abc import Mapping
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from proctor_api.logs.cursor import OPEN_LIMIT, Cursor, binding, decode, encode
from proctor_api.logs.order import WINDOW, Gap, LogPiece, Order, Shown
from proctor_api.logs.record import RunRecord
from proctor_common.messages.log import Chunk
from proctor_common.messages.views import AttemptLog, RunLogIndex
from proctor_common.states import GapReason, RunState, Source, StepResult, StepState

BOUND = binding("r", None)
NOW = datetime(2026, 11, 21, tzinfo=UTC)


def record(chunks: Mapping[int, int | None], *, finished: bool = True, lines: int | None = None) -> RunRecord:
    """A run with attempts 1, 2, …; ``chunks``: how many each has (None: not known)."""
    attempts = [
        AttemptLog(
            index=number,
            step_id=f"s{number}",
            step=f"step{number}",
            attempt=1,
            agent="a",
            state=StepState.FINISHED if finished or count is not None else StepState.RUNNING,
            chunks=count,
            lines=lines if lines is not None else count,
            bytes=None if count is None else 4 * count,
        )
        for number, count in chunks.items()
    ]
    state = RunState.FINISHED if finished else RunState.RUNNING
    return RunRecord(RunLogIndex(run="r", number=1, state=state, created_at=NOW, attempts=attempts), 0.0)


def piece(at: int, number: int, seq: int, *, data: bytes = b"abc\n", line: int | None = None) -> LogPiece:
    return LogPiece(at, number, Chunk(seq, line or seq, 0.0, Source.STDOUT, data))


def show(order: Order, stream: list[LogPiece]) -> list[tuple[Shown, str]]:
    """Read the stream as a viewer does; each thing shown with the cursor behind it."""
    shown: list[tuple[Shown, str]] = []
    while True:
        rest = [one for one in stream if one.at >= order.pos]
        if not rest:
            return shown
        for one in rest:
            for thing in order.take(one):
                shown.append((thing, encode(order.cursor(0), BOUND)))
            if order.pos != one.at + 1:
                break


def names(shown: list[tuple[Shown, str]]) -> list[tuple[int, object]]:
    return [(t.number, t.chunk.seq if isinstance(t, LogPiece) else (t.first, t.last, t.reason.value)) for t, _ in shown]


@st.composite
def streams(draw: st.DrawFn) -> tuple[dict[int, int], list[LogPiece]]:
    """Up to four attempts, their chunks shuffled within a window, some stored twice or much later."""
    counts = {n: draw(st.integers(0, 12)) for n in range(1, draw(st.integers(1, 4)) + 1)}
    chaos = random.Random(draw(st.integers(0, 2**32)))
    queue = [(seq + chaos.uniform(0, 6), n, seq) for n, count in counts.items() for seq in range(1, count + 1)]
    queue += [(seq + chaos.uniform(0, 20), n, seq) for _, n, seq in chaos.sample(queue, len(queue) // 3)]
    queue.sort()
    at = 0
    stream = []
    for _, number, seq in queue:
        at += chaos.randint(1, 3)
        stream.append(piece(at, number, seq))
    return counts, stream


@settings(max_examples=150, deadline=None)
@given(streams())
def test_every_chunk_is_shown_once_and_in_order(world: tuple[dict[int, int], list[LogPiece]]) -> None:
    counts, stream = world
    order = Order(record(counts), Cursor())
    shown = names(show(order, stream))
    for number, count in counts.items():
        assert [what for n, what in shown if n == number] == list(range(1, count + 1))
    assert order.complete


@settings(max_examples=150, deadline=None)
@given(streams(), st.integers(0, 1000))
def test_any_cursor_goes_on_without_loss_or_double(world: tuple[dict[int, int], list[LogPiece]], where: int) -> None:
    counts, stream = world
    known = record(counts)
    whole = show(Order(known, Cursor()), stream)
    if not whole:
        return
    cut = where % len(whole)
    again = show(Order(known, decode(whole[cut][1], BOUND)), stream)
    assert sorted(names(whole[: cut + 1] + again)) == sorted(names(whole))
    for number in counts:
        assert [w for n, w in names(again) if n == number] == [w for n, w in names(whole[cut + 1 :]) if n == number]


def test_a_front_that_is_gone_is_one_gap_then_what_is_left() -> None:
    order = Order(record({1: 9}), Cursor())
    assert names(show(order, [piece(50 + seq, 1, seq) for seq in range(5, 10)])) == []
    assert order.has_missing
    settled = list(order.settle())
    assert names([(thing, "") for thing in settled]) == [(1, (1, 4, "expired")), *((1, seq) for seq in range(5, 10))]
    assert order.complete


def test_a_log_that_is_gone_wholly_is_one_gap_with_its_lines_and_bytes() -> None:
    order = Order(record({1: 9}), Cursor())
    assert list(order.settle()) == [Gap(1, 1, 9, 36, GapReason.EXPIRED)]
    assert order.complete


def test_the_end_of_a_lost_attempt_is_a_gap_because_nobody_knows_it() -> None:
    order = Order(record({1: None}), Cursor())
    assert names(show(order, [piece(1, 1, 1)])) == [(1, 1)]
    assert list(order.settle()) == [Gap(1, 2, None, None, GapReason.LOST)]
    assert order.complete


def test_an_attempt_that_nobody_reported_on_is_shown_as_far_as_it_was_stored() -> None:
    known = record({1: 0})
    known.attempts[1] = known.attempts[1].model_copy(update={"lines": None, "result": StepResult.LOST})
    order = Order(known, Cursor())
    assert names(show(order, [piece(1, 1, 1), piece(2, 1, 2)])) == [(1, 1), (1, 2)]
    assert list(order.settle()) == [Gap(1, 3, None, None, GapReason.LOST)]


def test_an_attempt_that_never_ran_leaves_no_gap() -> None:
    known = record({1: 0})
    known.attempts[1] = known.attempts[1].model_copy(update={"lines": None, "result": StepResult.ERROR})
    order = Order(known, Cursor())
    assert list(order.settle()) == []
    assert order.complete


def test_a_hole_in_an_attempt_that_goes_on_waits_for_its_chunk() -> None:
    order = Order(record({1: None}, finished=False), Cursor())
    assert names(show(order, [piece(1, 1, 1), piece(2, 1, 3)])) == [(1, 1)]
    assert order.has_holes
    assert order.cursor(0).base == 2
    assert names(show(order, [piece(9, 1, 2)])) == [(1, 2), (1, 3)]


def test_a_hole_wider_than_any_window_is_a_gap_and_memory_stays_bounded() -> None:
    order = Order(record({1: None}, finished=False), Cursor())
    shown = names(show(order, [piece(seq, 1, seq) for seq in range(2, WINDOW + 3)]))
    assert shown[0] == (1, (1, 1, "expired"))
    assert shown[1:] == [(1, seq) for seq in range(2, WINDOW + 3)]


def test_more_attempts_than_a_cursor_holds_come_one_after_another() -> None:
    count = OPEN_LIMIT + 30
    stream = [piece(seq * count + n, n, seq) for seq in (1, 2) for n in range(1, count + 1)]
    order = Order(record(dict.fromkeys(range(1, count + 1), 2)), Cursor())
    shown = show(order, stream)
    assert sorted(names(shown)) == sorted((n, seq) for n in range(1, count + 1) for seq in (1, 2))
    assert all(len(text) <= 4096 for _, text in shown)
    assert order.complete


def test_a_gap_that_the_agent_announced_stands_where_its_bytes_would() -> None:
    order = Order(record({1: 3}), Cursor())
    dropped = LogPiece(2, 1, Chunk(2, 2, 0.0, Source.STDOUT, b"", GapReason.SPOOL_FULL, 7000))
    shown = names(show(order, [piece(1, 1, 1), dropped, piece(3, 1, 3, line=2)]))
    assert shown == [(1, 1), (1, (2, None, "spool_full")), (1, 3)]


def test_a_view_of_one_step_shows_and_waits_for_nothing_else() -> None:
    order = Order(record({1: 1, 2: 1}), Cursor(), "step2")
    assert names(show(order, [piece(1, 1, 1), piece(2, 2, 1)])) == [(2, 1)]
    assert order.complete
