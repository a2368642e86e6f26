"""Finds a thing by its name, its id, or the end of its id as lists show it."""

from collections.abc import Iterable
from typing import Any

from proctor_cli.faults import Usage

SHOWN = 12
"""Characters at the end of an id in lists; the beginning of an id is the time of its creation."""


def short_id(full: str) -> str:
    """An id as in lists."""
    return full[-SHOWN:]


def find_named(rows: Iterable[dict[str, Any]], word: str, kind: str) -> dict[str, Any]:
    """The one row with this id, name, or end of the id (at least 6 characters).

    Raises Usage if there is none, or if several share the name: then it lists their ids.
    """
    found = []
    for row in rows:
        if row["id"] == word:
            return row
        if row.get("name") == word or (len(word) >= 6 and row["id"].endswith(word)):
            found.append(row)
    if not found:
        raise Usage(f"no such {kind}: {word}")
    if len(found) > 1:
        raise Usage(
            f"{len(found)} {kind}s are called {word}: name one by its id: {', '.join(r['id'] for r in found[:8])}"
        )
    return found[0]
