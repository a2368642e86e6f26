"""The pool's pure rules: refill, breaker, quantiles, work, what a sync finds."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from proctor_common.states import VnfpState, VolumeState
from proctor_controller.domain.volumes.breaker import Breaker, after_failure, after_start, after_success, lets_pass
from proctor_controller.domain.volumes.refill import (
    Stock,
    bucket_of,
    hit_rate,
    plan_refill,
    plan_renewal,
    plan_trim,
    quantile,
)
from proctor_controller.domain.volumes.sync import Seen, compare, may_delete
from proctor_controller.domain.volumes.volume import (
    VNFP_TRANSITIONS,
    VOLUME_TRANSITIONS,
    Volume,
    Work,
    gives_up_looking,
    is_stuck,
    may_try_again,
    work_of,
)

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
COUNTS = st.integers(0, 12)
STOCKS = st.lists(
    st.builds(Stock, type=st.sampled_from("abcdef"), target=COUNTS, ready=COUNTS, creating=COUNTS, intent=COUNTS),
    max_size=5,
    unique_by=lambda stock: stock.type,
)


def volume(state: VolumeState = VolumeState.READY, **more: object) -> Volume:
    given: dict[str, object] = {"id": "v", "type": "igw", "size_gb": 1, "name": "n", "named": "n", "state": state}
    return Volume(**{**given, "created_at": NOW, "now": NOW, "backend_id": "b", "posted_at": NOW, **more})  # type: ignore[arg-type]


@given(STOCKS, st.integers(1, 20), st.none() | st.integers(-3, 30))
def test_a_refill_never_passes_target_concurrency_or_room(
    stocks: list[Stock], concurrency: int, room: int | None
) -> None:
    asked = plan_refill(stocks, concurrency=concurrency, spare_room=room)
    by_type = {stock.type: stock for stock in stocks}
    for type, count in asked.items():
        stock = by_type[type]
        assert stock.ready + stock.pending + count <= stock.target
    pending = sum(stock.pending for stock in stocks)
    assert pending + sum(asked.values()) <= max(concurrency, pending)
    if room is not None:
        assert sum(asked.values()) <= max(0, room)
    if room is None and pending < concurrency and any(stock.deficit for stock in stocks):
        assert asked


@given(STOCKS)
def test_a_trim_leaves_the_target_and_only_takes_idle_ones(stocks: list[Stock]) -> None:
    for stock in stocks:
        extra = plan_trim([stock]).get(stock.type, 0)
        assert extra <= stock.ready
        assert stock.ready - extra + stock.pending >= min(stock.target, stock.ready + stock.pending)
        assert not (extra and stock.deficit)


def test_the_emptiest_pool_is_filled_first() -> None:
    stocks = [Stock("full", 10, ready=9), Stock("empty", 10), Stock("half", 10, ready=5)]
    assert plan_refill(stocks, concurrency=4, spare_room=None) == {"empty": 4}


def test_old_spares_are_replaced_a_quarter_at_a_time_and_never_while_some_are_missing() -> None:
    assert plan_renewal(Stock("a", 8, ready=8), old=8) == 2
    assert plan_renewal(Stock("a", 1, ready=1), old=1) == 1
    assert plan_renewal(Stock("a", 8, ready=7), old=7) == 0


def test_three_failures_in_a_row_open_the_breaker_and_one_try_a_minute_passes() -> None:
    breaker = Breaker("igw")
    for _ in range(2):
        breaker = after_failure(breaker, NOW, "no")
        assert lets_pass(breaker, NOW)
    breaker = after_failure(breaker, NOW, "no")
    assert breaker.open
    assert not lets_pass(breaker, NOW + timedelta(seconds=59))
    later = NOW + timedelta(seconds=60)
    assert lets_pass(breaker, later)
    probing = after_start(breaker, later)
    assert not lets_pass(probing, later + timedelta(seconds=1))
    assert not lets_pass(after_failure(probing, later + timedelta(seconds=2), "no"), later + timedelta(seconds=59))
    assert after_success(probing) == Breaker("igw")
    assert after_failure(after_success(after_failure(Breaker(), NOW, "no")), NOW, "no").failures == 1, "in a row"


@given(st.lists(st.floats(0, 400), min_size=1, max_size=200), st.floats(0.01, 1))
def test_a_quantile_is_not_below_the_true_one_and_at_most_half_again_as_long(values: list[float], share: float) -> None:
    counts = [0] * 40
    for value in values:
        counts[bucket_of(value)] += 1
    true = sorted(values)[min(len(values) - 1, max(0, -(-int(share * len(values) * 1000) // 1000) - 1))]
    found = quantile(counts, share)
    assert found is not None
    assert found >= min(true, 370) / 1.0001
    assert quantile([], share) is None
    assert hit_rate(0, 0) is None
    assert hit_rate(4, 3) == 0.75


def test_every_state_has_its_transitions_and_those_at_the_end_have_none() -> None:
    assert set(VOLUME_TRANSITIONS) == set(VolumeState)
    assert set(VNFP_TRANSITIONS) == set(VnfpState)
    assert VOLUME_TRANSITIONS[VolumeState.DELETED] == frozenset()
    assert VolumeState.CLAIMED not in VOLUME_TRANSITIONS[VolumeState.CLAIMED], "claimed once"
    claimable = {old for old, new in VOLUME_TRANSITIONS.items() if VolumeState.CLAIMED in new}
    assert claimable == {VolumeState.READY}


def test_what_is_to_be_done_follows_from_the_row() -> None:
    intent = volume(VolumeState.INTENT, backend_id=None, posted_at=None)
    assert work_of(intent) is Work.CREATE
    assert work_of(replace(intent, posted_at=NOW)) is Work.LOOK_FOR, "never asked for twice before a look"
    assert work_of(volume(VolumeState.CREATING)) is Work.FOLLOW
    assert work_of(volume(VolumeState.READY)) is Work.NOTHING
    assert work_of(volume(VolumeState.CLAIMED, name="vnf")) is Work.RENAME
    assert work_of(volume(VolumeState.IN_USE, name="vnf")) is Work.RENAME
    assert work_of(volume(VolumeState.IN_USE)) is Work.NOTHING
    assert work_of(volume(VolumeState.DELETING)) is Work.DELETE
    assert work_of(volume(VolumeState.DELETING, backend_id=None)) is Work.LOOK_FOR, "it may be there"
    assert work_of(volume(VolumeState.FAILED)) is Work.DELETE
    assert work_of(volume(VolumeState.FAILED, gone_at=NOW)) is Work.NOTHING


def test_how_long_is_looked_and_followed() -> None:
    asked = volume(VolumeState.INTENT, backend_id=None)
    assert not gives_up_looking(asked, NOW + timedelta(seconds=29))
    assert gives_up_looking(asked, NOW + timedelta(seconds=30))
    assert not is_stuck(volume(VolumeState.CREATING), NOW + timedelta(minutes=29))
    assert is_stuck(volume(VolumeState.CREATING), NOW + timedelta(minutes=30))
    assert not may_try_again(volume()), "a spare is made again by the refill"
    creating = volume(VolumeState.CREATING, vnfp="n", tries=2)
    assert may_try_again(creating)
    assert not may_try_again(replace(creating, tries=3))
    assert may_try_again(volume(VolumeState.CLAIMED, vnfp="n")), "its spare is gone"
    assert not may_try_again(volume(VolumeState.CLAIMED, run="r")), "the run was told which one it has"
    assert not may_try_again(volume(VolumeState.IN_USE, vnfp="n")), "there was data on it"


def test_a_sync_finds_each_difference_once() -> None:
    lost = volume(VolumeState.INTENT, id="lost", backend_id=None)
    rows = [
        lost,
        volume(VolumeState.INTENT, id="unasked", backend_id=None, posted_at=None),
        volume(VolumeState.CREATING, id="done", backend_id="b-done"),
        volume(VolumeState.CREATING, id="slow", backend_id="b-slow"),
        volume(VolumeState.READY, id="bad", backend_id="b-bad"),
        volume(VolumeState.READY, id="good", backend_id="b-good"),
        volume(VolumeState.IN_USE, id="attached", backend_id="b-attached", vnfp="n"),
        volume(VolumeState.READY, id="missing", backend_id="b-missing"),
        volume(VolumeState.LEAKED, id="stuck", backend_id="b-stuck"),
        volume(VolumeState.FAILED, id="failed", backend_id="b-failed", gone_at=NOW),
    ]
    listed = [
        Seen("b-lost-1", "lost", "available"),
        Seen("b-lost-2", "lost", "available"),
        Seen("b-done", "done", "available"),
        Seen("b-slow", "slow", "creating"),
        Seen("b-bad", "bad", "error"),
        Seen("b-good", "good", "available"),
        Seen("b-attached", "attached", "in_use"),
        Seen("b-stuck", "stuck", "error_deleting"),
        Seen("b-failed", "failed", "available"),
        Seen("b-nobody", "nobody", "available"),
        Seen("b-going", "nobody-too", "deleting"),
    ]
    found = compare(rows, listed)
    assert [(row.id, seen.backend_id) for row, seen in found.adopt] == [("lost", "b-lost-1")]
    assert [row.id for row, _ in found.available] == ["done"]
    assert [row.id for row, _ in found.broken] == ["bad"]
    assert [row.id for row in found.missing] == ["missing"]
    assert [row.id for row in found.stuck] == ["stuck"]
    assert {seen.backend_id for seen in found.strays} == {"b-lost-2", "b-failed", "b-nobody"}
    assert not may_delete(NOW, NOW + timedelta(seconds=59), timedelta(seconds=60))
    assert may_delete(NOW, NOW + timedelta(seconds=60), timedelta(seconds=60))
