"""Queries of results: read from a URL, written as an SQL condition. No I/O."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Any

from pydantic_core import to_json

from proctor_api.catalog.dates import NEVER, read_date
from proctor_api.catalog.faults import bad

PAGE = 20
MAX_NUMBER = 2**31 - 1
COLUMNS = frozenset(
    {
        "pod_name",
        "project_name",
        "case_name",
        "installer",
        "version",
        "scenario",
        "build_tag",
        "criteria",
        "start_date",
        "stop_date",
    }
)
"""Members of a result that are texts, in columns of the same name."""
SHORT = {"project": "project_name", "case": "case_name", "pod": "pod_name", "_id": "id"}
MAX_DAYS = 366 * 3000


@dataclass(frozen=True, slots=True)
class ResultQuery:
    """Conditions that a result must meet, the order, and the number of results."""

    equal: tuple[tuple[str, str], ...] = ()
    """Columns and their values."""
    since: datetime | None = None
    before: datetime | None = None
    last: int = 0
    """Results at most; 0 for all."""
    page: int | None = None
    """The page of PAGE results, from 1; None for all results."""
    newest_first: bool = True
    groups: tuple[str, ...] | None = None
    """Only results of these groups; None for any."""
    nothing: bool = False
    """The query cannot match: it names an unknown field, or a date that is none."""

    @property
    def order(self) -> str:
        """For ORDER BY; a total order, so that (start_at, id) is a unique position in it."""
        return "start_at DESC, id DESC" if self.newest_first else "start_at, id"

    def where(self, after: tuple[datetime, str] | None = None) -> tuple[str, list[Any]]:
        """The SQL condition and its arguments; ``after``: only results behind this (start_at, id)."""
        parts: list[str] = []
        values: list[Any] = []

        def add(text: str, *given: Any) -> None:
            numbers = [f"${len(values) + place}" for place in range(1, len(given) + 1)]
            parts.append(text.format(*numbers))
            values.extend(given)

        for name, value in self.equal:
            _add_equal(add, name, value)
        if self.since is not None:
            add("start_at >= {}", self.since)
        if self.before is not None:
            add("start_at < {}", self.before)
            if self.since is None:
                parts.append("start_at > '-infinity'")
        if self.groups is not None:
            add("owner_group = ANY({}::text[])", list(self.groups))
        if after is not None:
            sign = "<" if self.newest_first else ">"
            add(f"(start_at, id) {sign} ({{}}, {{}})", *after)
        if self.nothing:
            parts.append("false")
        return (" AND ".join(parts) or "true"), values


def _add_equal(add: Any, name: str, value: str) -> None:
    if name == "trust_indicator":
        add("trust_indicator = {}", float(value))
    elif name == "details":
        # Only details that are a text can be equal. Comparing the size first saves reading all others.
        text = to_json(value).decode()
        add("(size = {} AND details::text = {})", len(text.encode()), text)
    else:
        add(f"{name} = {{}}", value)


def read_query(
    pairs: Iterable[tuple[str, str]],
    now: datetime,
    zone: tzinfo,
    groups: Sequence[str] | None,
    *,
    strict: bool = False,
) -> ResultQuery:
    """The query in a URL's parameters; the last one counts if one is repeated. Raises 400.

    A ``from`` or ``to`` that is not a date matches nothing, as in OPNFV's Test API; with ``strict`` it is a 400.
    """
    given = dict(pairs)
    equal: list[tuple[str, str]] = []
    nothing = False
    for key, value in given.items():
        if key in {"period", "last", "page", "from", "to", "descend"}:
            continue
        name = SHORT.get(key, key)
        known = name in COLUMNS or key in {"_id", "details"} or (name == "trust_indicator" and _is_number(value))
        if known:
            equal.append((name, value))
        else:
            nothing = True
    since, before = _moment(given, "from", zone, strict), _moment(given, "to", zone, strict)
    unread = ("from" in given and since is None) or ("to" in given and before is None)
    period = _integer(given, "period", 0, least=-MAX_NUMBER)
    if period > 0:
        start = now - timedelta(days=period) if period < MAX_DAYS and period < now.toordinal() else NEVER
        since = max(filter(None, (since, max(start, NEVER + timedelta(microseconds=1)))))
    return ResultQuery(
        equal=tuple(equal),
        since=since,
        before=before,
        last=_integer(given, "last", 0, least=0),
        page=_integer(given, "page", 1, least=1) if "page" in given else None,
        newest_first=given.get("descend", "true").strip().lower() == "true",
        groups=None if groups is None else tuple(groups),
        nothing=nothing or unread,
    )


def _is_number(text: str) -> bool:
    try:
        return float(text) == float(text)
    except ValueError:
        return False


def _integer(given: dict[str, str], key: str, default: int, *, least: int) -> int:
    text = given.get(key)
    if text is None:
        return default
    text = text.strip()
    digits = text.removeprefix("-")
    if not digits.isascii() or not digits.isdecimal():
        raise bad(f"{key} must be an integer")
    number = int(text[:21])
    if number < least:
        raise bad(f"{key} must be at least {least}")
    return min(number, MAX_NUMBER)


def _moment(given: dict[str, str], key: str, zone: tzinfo, strict: bool) -> datetime | None:
    text = given.get(key)
    if text is None:
        return None
    found = read_date(text, zone)
    if found is None and strict:
        raise bad(f"{key} must be a date: YYYY-MM-DD or YYYY-MM-DD HH:MM:SS, or ISO with a zone")
    return found
