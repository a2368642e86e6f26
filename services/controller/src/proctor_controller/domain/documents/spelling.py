"""Finds the known name that a misspelt one is closest to. Pure."""

import difflib
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

MAX_COMPARED = 200
MAX_LISTED = 8
MAX_STRANGE = 5


def near(name: str, known: Iterable[str]) -> str | None:
    """The most similar known name; None if none is close."""
    names = sorted(known)
    # Among very many names, compare only those of similar length: comparing costs time.
    some = [each for each in names if abs(len(each) - len(name)) <= 2][:MAX_COMPARED] if len(names) > 50 else names
    found = difflib.get_close_matches(name[:60], some, 1)
    return found[0] if found else None


def hint(name: str, known: Iterable[str]) -> str:
    """``; did you mean …?`` if a known name is near, else the known names, else nothing."""
    names = sorted(set(known))
    found = near(name, names)
    if found is not None:
        return f"; did you mean {found}?"
    return f"; there is {', '.join(names)}" if 0 < len(names) <= MAX_LISTED else ""


def misspelt(given: Any, name: str, known: Iterable[str]) -> bool:
    """Whether another, unknown member was meant to be the missing one, or to bring it (``<<`` of older YAML)."""
    if not isinstance(given, Mapping) or name in given:
        return False
    if "<<" in given:
        return True
    names = frozenset(known)
    strange = islice((key for key in given if isinstance(key, str) and key not in names), MAX_STRANGE)
    return any(near(key, names) == name for key in strange)
