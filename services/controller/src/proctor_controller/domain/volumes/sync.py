"""Compares our rows with the backend's volumes. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from proctor_common.states import VolumeState
from proctor_controller.domain.volumes.volume import Volume

HELD = frozenset({VolumeState.READY, VolumeState.CLAIMED, VolumeState.IN_USE, VolumeState.CREATING})


@dataclass(frozen=True, slots=True)
class Seen:
    """A volume of ours as the backend lists it."""

    backend_id: str
    volume_id: str
    state: str
    reason: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class Findings:
    """What to do about the differences."""

    adopt: tuple[tuple[Volume, Seen], ...] = ()
    """Rows whose creation was not answered, with their volume."""
    available: tuple[tuple[Volume, Seen], ...] = ()
    """Rows in creating whose volume is available."""
    broken: tuple[tuple[Volume, Seen], ...] = ()
    """Rows whose volume is in an unexpected state, with that state."""
    missing: tuple[Volume, ...] = ()
    """Rows whose volume was not listed: ask for each before it counts as gone."""
    stuck: tuple[Volume, ...] = ()
    """Leaked ones whose deletion may be tried again."""
    strays: tuple[Seen, ...] = ()
    """Volumes without a row."""


def compare(rows: Sequence[Volume], listed: Sequence[Seen]) -> Findings:
    """The differences. The list must be older than the rows: then every volume of ours in it has its row."""
    adopt, strays = _owners(rows, listed)
    at_hand = {seen.backend_id: seen for seen in listed}
    living = [row for row in rows if row.backend_id is not None and row.gone_at is None]
    held = [(row, at_hand.get(row.backend_id or "")) for row in living if row.state in HELD]
    creating = [(row, seen) for row, seen in held if seen is not None and row.state is VolumeState.CREATING]
    others = [(row, seen) for row, seen in held if seen is not None and row.state is not VolumeState.CREATING]
    return Findings(
        adopt=tuple(adopt),
        available=tuple((row, seen) for row, seen in creating if seen.state == "available"),
        broken=(
            *((row, seen) for row, seen in creating if seen.state not in {"available", "creating"}),
            *((row, seen) for row, seen in others if _is_broken(row, seen.state)),
        ),
        missing=tuple(row for row, seen in held if seen is None),
        stuck=tuple(row for row in living if row.state is VolumeState.LEAKED),
        strays=tuple(seen for seen in strays if seen.state != "deleting"),
    )


def _owners(rows: Sequence[Volume], listed: Sequence[Seen]) -> tuple[list[tuple[Volume, Seen]], list[Seen]]:
    """Rows whose answer was lost, each with the oldest volume that has its id; and the volumes without a row."""
    by_id = {row.id: row for row in rows}
    adopt: dict[str, tuple[Volume, Seen]] = {}
    strays: list[Seen] = []
    for seen in listed:
        row = by_id.get(seen.volume_id)
        if row is None or row.gone_at is not None:
            strays.append(seen)
        elif row.backend_id is None and row.posted_at is not None and row.id not in adopt:
            adopt[row.id] = (row, seen)
        elif row.backend_id != seen.backend_id:
            strays.append(seen)
    return list(adopt.values()), strays


def _is_broken(row: Volume, state: str) -> bool:
    """A spare must be available. A claimed one may be attached; only an error or its deletion counts."""
    if row.state is VolumeState.READY:
        return state != "available"
    return state in {"error", "error_deleting", "deleting"}


def may_delete(first_seen: datetime, now: datetime, age: timedelta) -> bool:
    """Whether a stray that is seen again has been known for long enough."""
    return now - first_seen >= age


def sizes_of(rows: Mapping[str, int]) -> str:
    """``2 adopted, 1 missing``: the counts that are not 0, for the job's outcome."""
    return ", ".join(f"{count} {word}" for word, count in rows.items() if count)
