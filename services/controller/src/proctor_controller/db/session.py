"""Sessions, rows, and conversion of values for the engine's statements."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pydantic_core import to_json as _dump

from proctor_common.pg import Session, close_sessions, session

__all__ = ["Row", "Session", "clean", "close_sessions", "rows_json", "session", "to_json"]


class Row(Protocol):
    """A row: columns by name."""

    def __getitem__(self, name: str) -> Any: ...


def to_json(value: Any) -> str:
    """JSON text for a column of type json or jsonb; when read, the driver returns such columns as values."""
    return _dump(value).decode()


def clean(text: str, limit: int = 2000) -> str:
    """Text as PostgreSQL can store it: without NUL and lone surrogates, cut to ``limit`` characters."""
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def rows_json(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows for json_to_recordset; times as ISO text."""
    return to_json(rows)
