"""Answers that are lists: as many rows as fit into a reply, and where the next page starts. No I/O."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from pydantic_core import to_json

from proctor_common.messages.calls import MAX_REPLY
from proctor_common.messages.views import View

ROOM = MAX_REPLY - 4096
"""What the rows may take: the reply has a frame around them."""
V = TypeVar("V", bound=View)


def page(views: Sequence[V], limit: int, cursor: Callable[[V], str], following: str | None = None) -> bytes:
    """A Listing as JSON of at most ``limit`` of the views; ``next`` is the last shown one's cursor where more follow.

    Give one view more than ``limit``, so that the end is known. ``following``: ``next`` where all views are shown.
    """
    rows: list[bytes] = []
    size = 0
    for view in views[:limit]:
        row = view.encode()
        size += len(row) + 1
        if rows and size > ROOM:
            break
        rows.append(row)
    if rows and len(rows) < len(views):
        following = cursor(views[len(rows) - 1])
    return b'{"items":[%s],"next":%s}' % (b",".join(rows), to_json(following))
