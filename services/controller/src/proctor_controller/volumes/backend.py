"""What a backend of the volume pool must do, and its faults.

The pool (``pool/``) stores a row with our id before it requests a volume, and passes that id. A backend stores two
things with each volume that it makes, in the backend's own metadata: the **installation** (given when the backend is
opened; several Proctors may share one cloud) and **our volume id**. A volume without both belongs to others, whatever
its name, and is never listed, renamed or deleted here.

Every call has a time limit of the backend's own. Idempotent calls (find, get, list_ours, rename, delete, room) may be
repeated inside; ``create`` asks the cloud **once**. All faults are :class:`BackendFault`; besides these only
CancelledError is raised. No method waits until a volume is available: the pool polls with ``get``.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol


class FoundState(StrEnum):
    """A volume's state in the backend. States without an equivalent here are ``other``."""

    CREATING = "creating"
    AVAILABLE = "available"
    IN_USE = "in_use"
    DELETING = "deleting"
    ERROR = "error"
    ERROR_DELETING = "error_deleting"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class FoundVolume:
    """A volume as the backend has it. ``volume_id`` is ours, from the metadata."""

    backend_id: str
    volume_id: str
    name: str
    type: str
    size_gb: int
    state: FoundState
    created_at: datetime | None = None
    """With time zone, in UTC."""
    reason: str = ""
    """Why it is in ``error``; for ``other`` the backend's own word for the state."""
    path: str = ""
    """Its file on this machine; empty if it is elsewhere."""


class BackendFault(Exception):
    """A call without a usable answer. The message is for people: one line, no secret.

    Only after :class:`AnswerLost` it is unknown whether the request was carried out.
    """


class AnswerLost(BackendFault):
    """The request was, or may have been, sent and no clear answer came: a timeout, a broken connection, a 5xx. A volume
    may have been made: look for it with ``find`` before anything else.
    """


class BackendDown(BackendFault):
    """Nothing was done: connection refused, no token, 503 before the API. Counts for the breaker."""


class BackendBusy(BackendFault):
    """The backend wants fewer requests (429). ``after``: seconds, if it said so. Nothing was done."""

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class QuotaRefused(BackendFault):
    """No room (413). Nothing was made; an immediate repeat is useless."""


class BadRequest(BackendFault):
    """It will never succeed (400, 404 no such type, 403): the settings are at fault. Nothing was made."""


class NotNow(BackendFault):
    """The volume's state does not allow it yet (delete while ``creating``, rename in ``maintenance``): try later."""


class Stuck(BackendFault):
    """The volume is in ``error_deleting`` (or the like) and this account may not clear it: an operator must."""


class Backend(Protocol):
    """One place for volumes. Safe for concurrent callers."""

    async def create(self, volume_id: str, name: str, type: str, size_gb: int) -> str:
        """Request a volume, marked with our id; returns its id in the backend. It need not be available yet.

        Raises AnswerLost, BackendDown, BackendBusy, QuotaRefused, BadRequest.
        """
        ...

    async def find(self, volume_id: str) -> list[FoundVolume]:
        """All volumes with our id (two, if something went wrong); empty if there is none **yet**.

        Raises BackendFault.
        """
        ...

    async def get(self, backend_id: str) -> FoundVolume | None:
        """The volume; None if the backend says that there is none. Raises BackendFault."""
        ...

    async def list_ours(self) -> list[FoundVolume]:
        """All volumes of our installation, in any state, oldest first; complete, or a fault is raised.

        Raises BackendFault.
        """
        ...

    async def rename(self, backend_id: str, name: str) -> bool:
        """Set its name; may be repeated. False if there is no such volume. Raises BackendFault."""
        ...

    async def delete(self, backend_id: str) -> bool:
        """Request its deletion; may be repeated. False if it is gone already; True: requested, it may take a while (in
        the end ``get`` returns None). Raises NotNow, Stuck, BackendFault.
        """
        ...

    async def room(self) -> int | None:
        """How many more volumes may be made, by the quota; None if unknown. Raises BackendFault."""
        ...

    async def close(self) -> None:
        """Close the connections. The volumes stay."""
        ...
