"""A backend with counted calls, for metrics."""

from collections import Counter
from collections.abc import Awaitable
from typing import TypeVar

from proctor_controller.volumes.backend import Backend, BackendFault, FoundVolume

T = TypeVar("T")


class Counted:
    """Forwards every call. ``counts``: (call, outcome) -> number; the outcome is ``ok`` or the fault's name."""

    def __init__(self, backend: Backend, counts: Counter[tuple[str, str]]) -> None:
        self._backend = backend
        self._counts = counts

    async def _count(self, call: str, work: Awaitable[T]) -> T:
        try:
            answer = await work
        except BackendFault as fault:
            self._counts[call, type(fault).__name__] += 1
            raise
        self._counts[call, "ok"] += 1
        return answer

    async def create(self, volume_id: str, name: str, type: str, size_gb: int) -> str:
        """See :class:`Backend`."""
        return await self._count("create", self._backend.create(volume_id, name, type, size_gb))

    async def find(self, volume_id: str) -> list[FoundVolume]:
        """See :class:`Backend`."""
        return await self._count("find", self._backend.find(volume_id))

    async def get(self, backend_id: str) -> FoundVolume | None:
        """See :class:`Backend`."""
        return await self._count("get", self._backend.get(backend_id))

    async def list_ours(self) -> list[FoundVolume]:
        """See :class:`Backend`."""
        return await self._count("list", self._backend.list_ours())

    async def rename(self, backend_id: str, name: str) -> bool:
        """See :class:`Backend`."""
        return await self._count("rename", self._backend.rename(backend_id, name))

    async def delete(self, backend_id: str) -> bool:
        """See :class:`Backend`."""
        return await self._count("delete", self._backend.delete(backend_id))

    async def room(self) -> int | None:
        """See :class:`Backend`."""
        return await self._count("room", self._backend.room())

    async def close(self) -> None:
        """See :class:`Backend`."""
        await self._backend.close()
