"""What a backend of the volume pool must do, and the faults it tells apart.

The pool (``pool/``) writes a row with our id before it asks for a volume, and gives that id along. So a backend keeps
two things with each volume that it makes, in the backend's own metadata: the **installation** (given when the backend
is opened; several Proctors may share one cloud) and **our volume id**. A volume without both is a stranger's, whatever
its name, and is never listed, renamed or deleted through here.

Every call has a time limit of the backend's own. Idempotent calls (find, get, list_ours, rename, delete, room) may be
tried again inside; ``create`` asks the cloud **once**. All faults are :class:`BackendFault`; nothing else is raised,
but CancelledError. No method sleeps until a volume is available: the pool asks again with ``get``.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol


class FoundState(StrEnum):
    """Where the backend says that a volume is. What it says and we have no word for is ``other``."""

    CREATING = "creating"
    AVAILABLE = "available"
    IN_USE = "in_use"
    DELETING = "deleting"
    ERROR = "error"
    ERROR_DELETING = "error_deleting"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Found:
    """A volume as the backend knows it. ``volume_id`` is ours, from the metadata."""

    backend_id: str
    volume_id: str
    name: str
    type: str
    size_gb: int
    state: FoundState
    created_at: datetime | None = None
    """Aware, UTC."""
    reason: str = ""
    """Why it is in ``error``, or the backend's own word where the state is ``other``."""
    path: str = ""
    """Where its bytes lie on this machine; empty where they lie elsewhere."""


class BackendFault(Exception):
    """A call that brought no answer to use. The message is for people: one line, no secret.

    Of these, :class:`AnswerLost` alone leaves open whether the thing was done.
    """


class AnswerLost(BackendFault):
    """The request was sent (or may have been) and no clear answer came: a timeout, a broken connection, a 5xx.
    A volume may have been made: look for it with ``find`` before anything else.
    """


class BackendDown(BackendFault):
    """Nothing was sent or nothing was done: refused connection, no token to be had, 503 before the API. Counts for
    the breaker.
    """


class BackendBusy(BackendFault):
    """It asks us to come more slowly (429). ``after``: seconds, where it said so. Nothing was done."""

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class QuotaRefused(BackendFault):
    """No room (413). Nothing was made; asking again at once brings nothing."""


class BadRequest(BackendFault):
    """It will never do this (400, 404 no such type, 403): an operator or the settings are at fault. Nothing was
    made.
    """


class NotNow(BackendFault):
    """The volume's state does not allow it yet (delete while ``creating``, rename in ``maintenance``): ask later."""


class Stuck(BackendFault):
    """The volume is in ``error_deleting`` (or so) and this account may not clear it: an operator must."""


class Backend(Protocol):
    """One place where volumes are. Safe for many callers at once."""

    async def create(self, volume_id: str, name: str, type: str, size_gb: int) -> str:
        """Ask for a volume, marked with our id; its id in the backend. It need not be available yet.

        Raises AnswerLost, BackendDown, BackendBusy, QuotaRefused, BadRequest.
        """
        ...

    async def find(self, volume_id: str) -> list[Found]:
        """All volumes that carry our id (two, where something went wrong); empty where there is none **yet**.

        Raises BackendFault.
        """
        ...

    async def get(self, backend_id: str) -> Found | None:
        """The volume; None where the backend says that there is none. Raises BackendFault."""
        ...

    async def list_ours(self) -> list[Found]:
        """All volumes of our installation, in any state, oldest first; all or a fault, never a part.

        Raises BackendFault.
        """
        ...

    async def rename(self, backend_id: str, name: str) -> bool:
        """Give it a name; again is no fault. False where there is no such volume. Raises BackendFault."""
        ...

    async def delete(self, backend_id: str) -> bool:
        """Ask for its end; again is no fault. False where it is gone already; True: asked, it may take a while (``get``
        says None in the end). Raises NotNow, Stuck, BackendFault.
        """
        ...

    async def room(self) -> int | None:
        """How many volumes more may be made, by the quota; None where that is not known. Raises BackendFault."""
        ...

    async def close(self) -> None:
        """Let go of connections. The volumes stay."""
        ...
