"""The backend ``cinder``: the pool's calls as requests to block storage."""

import json
import re
from contextlib import suppress
from urllib.parse import quote

from proctor_controller.volumes.backend import (
    AnswerLost,
    BackendFault,
    BadRequest,
    FoundState,
    FoundVolume,
    NotNow,
    Stuck,
)
from proctor_controller.volumes.cinder.answers import (
    INSTALLATION_KEY,
    VOLUME_KEY,
    Answer,
    fault_of,
    is_gone,
    message_of,
    next_marker,
    room_of,
    volume_of,
)
from proctor_controller.volumes.cinder.client import BlockStorage
from proctor_controller.volumes.cinder.login import check_extra
from proctor_controller.volumes.cinder.source import CloudSource

PAGE = 200
RESTARTS = 5
MOST_PAGES = 1000
LONGEST_NAME = 255
_MARK = re.compile(r"^[A-Za-z0-9._:-]{1,255}\Z")


def open_cinder(source: CloudSource, installation: str) -> "CinderBackend":
    """The backend; it logs in at its first call. Raises ConfigurationError if the extra is not installed, and
    BadRequest for an installation that cannot be used as a mark.
    """
    check_extra()
    return CinderBackend(BlockStorage(source), installation)


class CinderBackend:
    """:class:`~proctor_controller.volumes.backend.Backend` on block storage."""

    def __init__(self, storage: BlockStorage, installation: str) -> None:
        if not _MARK.match(installation):
            raise BadRequest(f"an installation is 1 to 255 letters, digits and ._:- : {installation[:80]!r}")
        self.storage = storage
        self._installation = installation

    async def close(self) -> None:
        await self.storage.close()

    async def create(self, volume_id: str, name: str, type: str, size_gb: int) -> str:
        wished = {
            "name": name[:LONGEST_NAME],
            "size": size_gb,
            "volume_type": type,
            "metadata": self._marks(volume_id),
        }
        doing = f"create a volume of type {type}"
        answer = await self.storage.call("POST", "/volumes", json={"volume": wished}, doing=doing)
        made = answer.body.get("volume")
        if answer.status == 202 and isinstance(made, dict) and isinstance(made.get("id"), str):
            return str(made["id"])
        if answer.status < 400:
            # A volume may have been made; the answer is not one of block storage.
            raise _unread(answer, doing)
        raise fault_of(answer, doing)

    async def find(self, volume_id: str) -> list[FoundVolume]:
        return await self._list(self._marks(volume_id), f"look for volume {volume_id}")

    async def list_ours(self) -> list[FoundVolume]:
        return await self._list({INSTALLATION_KEY: self._installation}, "list our volumes")

    async def get(self, backend_id: str) -> FoundVolume | None:
        doing = f"look at volume {backend_id}"
        answer = await self.storage.call("GET", _path(backend_id), doing=doing)
        if is_gone(answer):
            return None
        if answer.status != 200:
            raise fault_of(answer, doing)
        found = volume_of(answer.body.get("volume"), self._installation)
        if found is not None and found.state is FoundState.ERROR:
            found = volume_of(answer.body.get("volume"), self._installation, await self._reason(backend_id))
        return found

    async def rename(self, backend_id: str, name: str) -> bool:
        doing = f"rename volume {backend_id}"
        wished = {"volume": {"name": name[:LONGEST_NAME]}}
        answer = await self.storage.call("PUT", _path(backend_id), json=wished, doing=doing)
        if is_gone(answer):
            return False
        if answer.status == 400 and "status" in message_of(answer).lower():
            raise NotNow(f"{doing}: {message_of(answer)}")
        if answer.status != 200:
            raise fault_of(answer, doing)
        return True

    async def delete(self, backend_id: str) -> bool:
        doing = f"delete volume {backend_id}"
        answer = await self.storage.call("DELETE", _path(backend_id), doing=doing)
        if is_gone(answer):
            return False
        if answer.status == 400:
            return await self._delete_later(backend_id, answer)
        if answer.status not in {202, 204}:
            raise fault_of(answer, doing)
        return True

    async def room(self) -> int | None:
        answer = await self.storage.call("GET", "/limits", doing="read the quota")
        if answer.status != 200:
            raise fault_of(answer, "read the quota")
        return room_of(answer.body)

    async def _delete_later(self, backend_id: str, refusal: Answer) -> bool:
        """The meaning of a 400 depends on the volume's state: it is being deleted, it is stuck, or it must wait."""
        found = await self.get(backend_id)
        if found is None:
            return False
        if found.state is FoundState.DELETING:
            return True
        if found.state is FoundState.ERROR_DELETING:
            return await self._force_delete(backend_id)
        raise NotNow(f"delete volume {backend_id}, which is {found.state}: {message_of(refusal)}")

    async def _force_delete(self, backend_id: str) -> bool:
        """Only administrators may do this."""
        doing = f"force the deletion of volume {backend_id}"
        answer = await self.storage.call(
            "POST", f"{_path(backend_id)}/action", json={"os-force_delete": {}}, doing=doing
        )
        if answer.status == 202 or is_gone(answer):
            return answer.status == 202
        if answer.status in {400, 403}:
            raise Stuck(
                f"volume {backend_id} is in error_deleting and this account may not clear it ({message_of(answer)}); "
                f"an administrator can: openstack volume delete --force {backend_id}"
            )
        raise fault_of(answer, doing)

    async def _list(self, marks: dict[str, str], doing: str) -> list[FoundVolume]:
        """All pages. If a page's marker was deleted meanwhile, there is no next page, and it starts over."""
        for _ in range(RESTARTS):
            found = await self._pages(marks, doing)
            if found is not None:
                return list(found.values())
        raise BackendFault(f"{doing}: the list changed under each of {RESTARTS} attempts to read it")

    async def _pages(self, marks: dict[str, str], doing: str) -> dict[str, FoundVolume] | None:
        found: dict[str, FoundVolume] = {}
        marker: str | None = None
        for _ in range(MOST_PAGES):
            params = {"metadata": json.dumps(marks), "sort": "created_at:asc,id:asc", "limit": str(PAGE)}
            if marker is not None:
                params["marker"] = marker
            answer = await self.storage.call("GET", "/volumes/detail", params=params, doing=doing)
            if is_gone(answer) and marker is not None:
                return None
            rows = answer.body.get("volumes")
            if answer.status != 200 or not isinstance(rows, list):
                raise fault_of(answer, doing) if answer.status >= 400 else _unread(answer, doing)
            for row in rows:
                # Check the volume's marks: the cloud's filter is not relied on.
                volume = volume_of(row, self._installation)
                if volume is not None and marks.get(VOLUME_KEY, volume.volume_id) == volume.volume_id:
                    found[volume.backend_id] = volume
            marker = next_marker(answer.body)
            if marker is None:
                return found
        raise BackendFault(f"{doing}: more than {MOST_PAGES} pages")

    async def _reason(self, backend_id: str) -> str:
        """Why a volume is in error, if the cloud has stored a message about it."""
        with suppress(BackendFault):
            answer = await self.storage.call(
                "GET", "/messages", params={"resource_uuid": backend_id}, doing="read why it failed"
            )
            messages = answer.body.get("messages")
            if answer.status == 200 and isinstance(messages, list) and messages and isinstance(messages[0], dict):
                return str(messages[0].get("user_message") or "")[:300]
        return ""

    def _marks(self, volume_id: str) -> dict[str, str]:
        return {INSTALLATION_KEY: self._installation, VOLUME_KEY: volume_id}


def _path(backend_id: str) -> str:
    return f"/volumes/{quote(backend_id, safe='')}"


def _unread(answer: Answer, doing: str) -> BackendFault:
    return AnswerLost(f"{doing}: {answer.status} with an answer that is no block storage's ({answer.request_id})")
