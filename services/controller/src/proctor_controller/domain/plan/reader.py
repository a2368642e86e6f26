"""Reads values of the simple kinds in a plan, and collects faults with their positions. Pure."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypeGuard

from proctor_common.durations import MAX_SECONDS, read_duration
from proctor_common.errors import Fault, fault
from proctor_common.limits import MAX_FAULTS
from proctor_controller.domain.documents.json_schema import dotted
from proctor_controller.domain.documents.spelled import is_scalar, written
from proctor_controller.domain.documents.spelling import hint, misspelt, near
from proctor_controller.domain.documents.tree import STANDS_IN, Document
from proctor_controller.domain.plan.model import Path

MAX_TEXT = 10_000
BAD_NAME = "a name is 1 to 63 letters, digits, dashes or underscores, no digit or dash first"
MERGE = "YAML 1.2 merges nothing: write the members out, or give the whole part by its alias (*name)"
END = r"\Z"


class Unknown:
    """Replaces a value that depends on a parameter that was not given."""


UNKNOWN: Final = Unknown()


def heads(path: str) -> Iterator[str]:
    """A path as text, then each path above it."""
    while path:
        yield path
        path = path[: max(path.rfind("."), path.rfind("["), 0)]


def in_order(found: Iterable[Fault]) -> list[Fault]:
    """The first faults by their positions, without duplicates; the last one says if there are more."""
    once: dict[tuple[Any, ...], Fault] = {}
    for each in found:
        once.setdefault((each["path"], each["message"], each["line"], each["column"]), each)
    ordered = sorted(once.values(), key=lambda each: (each["line"] or 0, each["column"] or 0))
    if len(ordered) <= MAX_FAULTS:
        return ordered
    said = f"there are more faults: these are the first {MAX_FAULTS}"
    return [*ordered[:MAX_FAULTS], fault("too_many_faults", said)]


class Faults:
    """The faults of one document."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._found: list[Fault] = list(document.faults)
        self._count = len(self._found)
        self._silent = frozenset(fault["path"] for fault in document.faults if fault["code"] in STANDS_IN)
        self._repeated = {fault["path"] for fault in document.faults if fault["code"] == "duplicate_key"}
        # A repeated key has one value here, without the fault.
        spoilt = [fault["path"] for fault in document.faults if fault["code"] != "duplicate_key"]
        self._exact = set(spoilt)
        self._touched = {head for path in spoilt for head in heads(path)}

    def add(self, path: Path, message: str, code: str = "invalid") -> None:
        """Add a fault, at the position of ``path`` or of the nearest part above it that has one."""
        self._count += 1
        if self.is_full:
            return
        where, place = dotted(list(path)), self.place(path)
        if where not in self._silent:
            self._found.append(fault(code, message, where, *place))
            self._exact.add(where)
            self._touched.update(heads(where))

    def touch(self, path: Path, but: Iterable[str] = ()) -> bool:
        """Whether the part at ``path``, or something in it, has a fault; ``but``: members to ignore."""
        part = dotted(list(path))
        if part not in self._touched:
            return False
        beside = {dotted([*path, name]) for name in but}
        within = (set(heads(fault)) for fault in self._exact)
        return not beside or any(part in found and not found & beside for found in within)

    def repeats(self, path: Path) -> bool:
        """Whether the part is written more than once; then its value is a mixture."""
        return dotted(list(path)) in self._repeated

    def explain(self, fault: Fault, part: Path) -> bool:
        """Whether a fault of something in ``part`` follows from one of these: at the same path, above it (within
        ``part``), or below it unless it is about names.
        """
        path, root = str(fault["path"]), dotted(list(part))
        if path in self._touched and fault["code"] not in {"missing", "unknown_member"}:
            return True
        for head in heads(path):
            if head == root:
                return False
            if head in self._exact:
                return True
        return False

    @property
    def words(self) -> Mapping[str, str]:
        """True and false that are written otherwise, by their path."""
        return self._document.words

    def place(self, path: Path) -> tuple[int, int] | tuple[None, None]:
        """Line and column of ``path``, or of the nearest part above it that has them."""
        parts: list[Any] = list(path)
        while parts and dotted(parts) not in self._document.places:
            parts.pop()
        return self._document.places.get(dotted(parts), (None, None))

    def __bool__(self) -> bool:
        return bool(self._found)

    @property
    def is_full(self) -> bool:
        """Whether there are more than are reported: stop looking for others."""
        return len(self._found) >= 3 * MAX_FAULTS

    def __len__(self) -> int:
        """How many there were, including those that are not reported."""
        return self._count

    def all(self) -> list[Fault]:
        """The reported ones, unordered."""
        return list(self._found)


class Reader:
    """Reads values of the simple kinds. A wrong value is a fault; then a substitute of the right type is returned."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults

    def fault(self, path: Path, message: str, code: str = "invalid") -> None:
        """Add a fault."""
        self.faults.add(path, message, code)

    def members(self, mapping: Mapping[str, Any], path: Path, known: Iterable[str]) -> None:
        """Add a fault for each unknown member."""
        names = sorted(known)
        for key in mapping:
            if key not in names and not self.faults.is_full:
                why = MERGE if key == "<<" else f"there is no member {key[:60]!r} here{hint(key, names)}"
                self.fault((*path, key), why, "unknown_member")

    def missing(self, given: Any, name: str, path: Path, known: Iterable[str], message: str = "") -> bool:
        """Whether ``given`` lacks a required member: a fault, unless it is misspelt."""
        if isinstance(given, Mapping) and name in given:
            return False
        if isinstance(given, Mapping) and not misspelt(given, name, known):
            self.fault(path, message or f"{name} is missing", "missing")
        return True

    def mapping(self, value: Any, path: Path, known: Iterable[str] | None = None) -> dict[str, Any]:
        """A mapping without its unknown members."""
        if not isinstance(value, dict):
            self.fault(path, "must be a mapping")
            return {}
        if known is None:
            return value
        names = set(known)
        self.members(value, path, names)
        return {key: part for key, part in value.items() if key in names}

    def text(self, value: Any, path: Path, pattern: re.Pattern[str] | None = None, *, most: int = MAX_TEXT) -> str:
        """Text that matches ``pattern``, if one is given."""
        value = self.spelled(value, path)
        if not isinstance(value, str):
            self.fault(path, "must be text")
            return ""
        if len(value) > most:
            self.fault(path, f"has {len(value)} characters, and {most} are allowed", "too_large")
            return ""
        if pattern is not None and not pattern.match(value):
            self.fault(path, f"must match {pattern.pattern.removesuffix(END)}$")
            return ""
        if "\0" in value:
            self.fault(path, "must not hold a NUL character")
        return value

    def spelled(self, value: Any, path: Path) -> Any:
        """A scalar as text, as it is written; anything else as it is."""
        if isinstance(value, bool):
            return self.faults.words.get(dotted(list(path)), written(value))
        return written(value) if is_scalar(value) else value

    def is_text(self, value: Any, path: Path, *, most: int = MAX_TEXT) -> TypeGuard[str]:
        """Whether it is text within the limits; if not, that is a fault."""
        before = len(self.faults)
        self.text(value, path, most=most)
        return len(self.faults) == before

    def flag(self, value: Any, path: Path) -> bool:
        """True or false."""
        if not isinstance(value, bool):
            self.fault(path, "must be true or false")
        return value is True

    def count(self, value: Any, path: Path, *, least: int = 1, most: int) -> int:
        """A whole number in a range."""
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.fault(path, f"must be a whole number from {least} to {most}")
            return least
        return value

    def choice(self, value: Any, path: Path, words: Iterable[str]) -> str:
        """One of the words; the first if it is none of them."""
        known = [str(word) for word in words]
        if not isinstance(value, str) or value not in known:
            meant = near(value, known) if isinstance(value, str) else None
            self.fault(path, f"must be one of {', '.join(known)}" + (f"; did you mean {meant}?" if meant else ""))
            return known[0]
        return value

    def duration(self, value: Any, path: Path, *, least: float = 0.001) -> float:
        """A duration in seconds."""
        seconds: float | None = None
        if isinstance(value, int | float) and not isinstance(value, bool):
            seconds = float(value) if abs(value) < 1e15 else MAX_SECONDS * 10
        elif isinstance(value, str):
            seconds = read_duration(value)
        if seconds is None:
            self.fault(path, "must be a duration: a number of seconds, or one with ms, s, m, h or d")
        elif not least <= seconds <= MAX_SECONDS:
            self.fault(path, f"must be {least:g} s to 30 d")
        else:
            return seconds
        return 1.0
