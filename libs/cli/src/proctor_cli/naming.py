"""What people call a thing that has an id: by its name, or by the end of the id as lists show it."""

from collections.abc import Iterable
from typing import Any

from proctor_cli.faults import Usage

SHOWN = 12
"""Characters at the end of an id that lists show; an id's begin is the time at which it was made."""


def short_id(full: str) -> str:
    """An id as lists show it."""
    return full[-SHOWN:]


def find_named(rows: Iterable[dict[str, Any]], word: str, kind: str) -> dict[str, Any]:
    """The one row that is called so: by its whole id, its name, or at least 6 characters at the end of its id.

    Raises Usage where there is none, or where several share the name: then their ids are told.
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
