"""What every part of a plan is read with: faults with their place, and values of the simple kinds. Pure."""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from proctor_controller.domain.plan.model import Path
from proctor_controller.domain.schemas import Fault, dotted
from proctor_controller.domain.yaml_text import Document

MAX_SECONDS = 30 * 86_400.0
MAX_FAULTS = 100
MAX_TEXT = 10_000
MAX_COMPARED = 200
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)\Z")
_UNIT = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


class Unknown:
    """Stands for a value that hangs on a parameter nobody has given."""


UNKNOWN: Final = Unknown()


def hint(name: str, known: Iterable[str]) -> str:
    """``; did you mean …?`` where a known name is near, else what there is, else nothing."""
    names = sorted(known)
    # Of very many names only those that are about as long are compared: that is not for free.
    some = [each for each in names if abs(len(each) - len(name)) <= 2][:MAX_COMPARED] if len(names) > 50 else names
    near = difflib.get_close_matches(name[:60], some, 1)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; there is {', '.join(names)}" if 0 < len(names) <= 8 else ""


class Faults:
    """The faults of one document, in the order in which they stand there."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._found: list[Fault] = []

    def add(self, path: Path, message: str, code: str = "invalid") -> None:
        """One more fault, at the place of ``path`` or of the nearest part above it that has one."""
        if not self.is_full:
            self._found.append({"code": code, "message": message, **self.place(path)})

    def place(self, path: Path) -> dict[str, Any]:
        """``path`` as text, with line and column."""
        parts: list[Any] = list(path)
        where = dotted(parts)
        while parts and dotted(parts) not in self._document.places:
            parts.pop()
        line, column = self._document.places.get(dotted(parts), (None, None))
        return {"path": where, "line": line, "column": column}

    def __bool__(self) -> bool:
        return bool(self._found)

    @property
    def is_full(self) -> bool:
        """Whether there are more than anybody will be told: no need to look for others."""
        return len(self._found) >= 3 * MAX_FAULTS

    def __len__(self) -> int:
        return len(self._found)

    def all(self) -> list[Fault]:
        """The first of them, by line; one fault at one place once."""
        once: dict[tuple[Any, ...], Fault] = {}
        for fault in self._found:
            once.setdefault((fault["path"], fault["message"]), fault)
        ordered = sorted(once.values(), key=lambda found: (found["line"] or 0, found["column"] or 0))
        return ordered[:MAX_FAULTS]


class Reader:
    """Reads values of the simple kinds; a wrong one is a fault, and what comes back then is of the right type."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults

    def fault(self, path: Path, message: str, code: str = "invalid") -> None:
        """One more fault."""
        self.faults.add(path, message, code)

    def members(self, mapping: Mapping[str, Any], path: Path, known: Iterable[str]) -> None:
        """Refuse members that are not known."""
        names = set(known)
        for key in mapping:
            if key not in names:
                near = hint(key, names) if len(names) > 8 or difflib.get_close_matches(key[:60], names, 1) else ""
                self.fault((*path, key), f"there is no member {key[:60]!r} here{near}", "unknown_member")

    def mapping(self, value: Any, path: Path, known: Iterable[str] | None = None) -> dict[str, Any]:
        """A mapping, without the members that are not known."""
        if not isinstance(value, dict):
            self.fault(path, "must be a mapping")
            return {}
        if known is None:
            return value
        names = set(known)
        self.members(value, path, names)
        return {key: part for key, part in value.items() if key in names}

    def text(self, value: Any, path: Path, pattern: re.Pattern[str] | None = None, *, most: int = MAX_TEXT) -> str:
        """Text, of a form where ``pattern`` says so."""
        if not isinstance(value, str):
            self.fault(path, "must be text")
            return ""
        if len(value) > most:
            self.fault(path, f"has more than {most} characters", "too_large")
            return ""
        if pattern is not None and not pattern.match(value):
            self.fault(path, f"must match {pattern.pattern}")
            return ""
        if "\0" in value:
            self.fault(path, "must not hold a NUL character")
        return value

    def flag(self, value: Any, path: Path) -> bool:
        """True or false."""
        if not isinstance(value, bool):
            self.fault(path, "must be true or false")
        return value is True

    def count(self, value: Any, path: Path, *, least: int = 1, most: int) -> int:
        """A whole number in a range."""
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.fault(path, f"must be a number from {least} to {most}")
            return least
        return value

    def choice(self, value: Any, path: Path, words: Iterable[str]) -> str:
        """One of the words; the first where it is none of them."""
        known = [str(word) for word in words]
        if not isinstance(value, str) or value not in known:
            near = difflib.get_close_matches(value[:60], known, 1) if isinstance(value, str) else []
            self.fault(path, f"must be {', '.join(known)}" + (f"; did you mean {near[0]}?" if near else ""))
            return known[0]
        return value

    def duration(self, value: Any, path: Path, *, least: float = 0.001) -> float:
        """Seconds."""
        seconds: float | None = None
        if isinstance(value, int | float) and not isinstance(value, bool):
            seconds = float(value) if abs(value) < 1e15 else MAX_SECONDS * 10
        elif isinstance(value, str) and (found := _DURATION.match(value)):
            seconds = float(found[1]) * _UNIT[found[2]]
        if seconds is None:
            self.fault(path, "must be a duration: a number of seconds, or one with ms, s, m, h or d")
        elif not least <= seconds <= MAX_SECONDS:
            self.fault(path, f"must be {least:g} s to 30 d")
        else:
            return seconds
        return 1.0
