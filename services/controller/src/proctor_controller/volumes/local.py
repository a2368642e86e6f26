"""The backend ``local``: disk files in one private folder; can imitate a cloud's delays and failures.

Each volume is two files: ``<backend id>.json`` names its owner and is written first, so that every file is known to be
ours; ``<backend id>.qcow2`` is made by qemu-img; without qemu-img ``.raw`` is a sparse file. Several processes may use
one folder.
"""

import asyncio
import fcntl
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from proctor_common.ids import is_id, new_id
from proctor_controller.domain.volumes.settings import LocalSettings
from proctor_controller.volumes.backend import (
    AnswerLost,
    BackendDown,
    BadRequest,
    FoundState,
    FoundVolume,
    QuotaRefused,
)

GIB = 1024**3
MAX_SIZE_GB = 1024
IMAGE_SECONDS = 30.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Card:
    """The content of a volume's JSON file."""

    backend_id: str
    volume_id: str
    installation: str
    name: str
    type: str
    size_gb: int
    created_at: str
    available_at: str
    fault: str = ""


class LocalBackend:
    """Volumes as files. ``folder`` is made with mode 0700; ``qemu_img``: the program, None: sparse files."""

    def __init__(
        self, folder: Path, installation: str, settings: LocalSettings, *, qemu_img: str | None = None, seed: int = 0
    ) -> None:
        self._folder = folder
        self._installation = installation
        self._settings = settings
        self._qemu_img = qemu_img if qemu_img is not None else shutil.which("qemu-img")
        self._chance = random.Random(seed or None)  # noqa: S311 - imitates failures, guards nothing
        self.calls = 0
        """Number of calls, for metrics."""

    async def create(self, volume_id: str, name: str, type: str, size_gb: int) -> str:
        """Make the files. Raises BadRequest, QuotaRefused, BackendDown."""
        if not 1 <= size_gb <= MAX_SIZE_GB:
            raise BadRequest(f"a local volume has 1 to {MAX_SIZE_GB} GB, not {size_gb}")
        now = datetime.now(UTC)
        card = _Card(
            backend_id=new_id(),
            volume_id=volume_id,
            installation=self._installation,
            name=name,
            type=type,
            size_gb=size_gb,
            created_at=now.isoformat(),
            available_at=(now + timedelta(seconds=self._settings.create_delay)).isoformat(),
            fault="fail_rate" if self._chance.random() < self._settings.fail_rate else "",
        )
        await self._call(lambda: self._register(card))
        fault = await self._make_disk(card)
        if fault:
            await self._in_thread(lambda: self._rewrite(card.backend_id, fault=fault))
        return card.backend_id

    async def find(self, volume_id: str) -> list[FoundVolume]:
        """The volumes with our id."""
        return [found for found in await self.list_ours() if found.volume_id == volume_id]

    async def get(self, backend_id: str) -> FoundVolume | None:
        """The volume, if it is one of this installation."""
        card = await self._call(lambda: self._read(backend_id))
        return None if card is None or card.installation != self._installation else self._found(card)

    async def list_ours(self) -> list[FoundVolume]:
        """All of them, oldest first."""
        return await self._call(self._list)

    async def rename(self, backend_id: str, name: str) -> bool:
        """Store the name."""
        return await self._call(lambda: self._rewrite(backend_id, name=name))

    async def delete(self, backend_id: str) -> bool:
        """Remove the files: the disk first, the JSON file last."""
        return await self._call(lambda: self._remove(backend_id))

    async def room(self) -> int | None:
        """What the quota leaves."""
        if not self._settings.quota:
            return None
        return max(0, self._settings.quota - await self._call(self._count))

    async def close(self) -> None:
        """Nothing to close."""

    # -- in a thread ----------------------------------------------------------------------------------------------

    async def _call(self, work: Callable[[], T]) -> T:
        """One call of the imitated cloud."""
        self.calls += 1
        if self._settings.answer_delay:
            await asyncio.sleep(self._settings.answer_delay)
        return await self._in_thread(work)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except OSError as fault:
            raise BackendDown(f"the folder of the volumes: {fault.strerror or fault}") from fault

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _register(self, card: _Card) -> None:
        with self._locked():
            quota = self._settings.quota
            if quota and self._count() >= quota:
                raise QuotaRefused(f"the quota of {quota} volumes is used up")
            self._write(card)

    def _rewrite(self, backend_id: str, *, name: str | None = None, fault: str | None = None) -> bool:
        with self._locked():
            card = self._read(backend_id)
            if card is None or card.installation != self._installation:
                return False
            card = replace(card, name=card.name if name is None else name, fault=card.fault if fault is None else fault)
            self._write(card)
            return True

    def _remove(self, backend_id: str) -> bool:
        with self._locked():
            card = self._read(backend_id)
            if card is None or card.installation != self._installation:
                return False
            # Drafts too: the process that made the disk may have been killed.
            for path in (*self._disks(backend_id), *self._folder.glob(f".{backend_id}.*")):
                path.unlink(missing_ok=True)
            self._card(backend_id).unlink(missing_ok=True)
            return True

    def _list(self) -> list[FoundVolume]:
        if not self._folder.is_dir():
            return []
        cards = [card for path in self._folder.glob("*.json") if (card := self._read(path.stem)) is not None]
        ours = [card for card in cards if card.installation == self._installation]
        return [self._found(card) for card in sorted(ours, key=lambda card: (card.created_at, card.backend_id))]

    def _count(self) -> int:
        return sum(1 for _ in self._folder.glob("*.json"))

    def _found(self, card: _Card) -> FoundVolume:
        disk = next((path for path in self._disks(card.backend_id) if path.exists()), None)
        created, now = datetime.fromisoformat(card.created_at), datetime.now(UTC)
        state, reason = FoundState.AVAILABLE, card.fault
        if now < datetime.fromisoformat(card.available_at):
            state = FoundState.CREATING
        elif card.fault:
            state = FoundState.ERROR
        elif disk is None:
            # The disk is made right after the card: it is being made, or its process was killed.
            late = now - created > timedelta(seconds=2 * IMAGE_SECONDS)
            state, reason = (FoundState.ERROR, "it has no disk") if late else (FoundState.CREATING, "")
        return FoundVolume(
            backend_id=card.backend_id,
            volume_id=card.volume_id,
            name=card.name,
            type=card.type,
            size_gb=card.size_gb,
            state=state,
            created_at=created,
            reason=reason,
            path="" if disk is None else str(disk),
        )

    # -- files ----------------------------------------------------------------------------------------------------

    def _card(self, backend_id: str) -> Path:
        return self._folder / f"{backend_id}.json"

    def _disks(self, backend_id: str) -> tuple[Path, Path]:
        return self._folder / f"{backend_id}.qcow2", self._folder / f"{backend_id}.raw"

    def _read(self, backend_id: str) -> _Card | None:
        if not is_id(backend_id):
            return None
        try:
            return _Card(**json.loads(self._card(backend_id).read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as fault:
            raise OSError(f"{backend_id}.json is not what was written there") from fault

    def _write(self, card: _Card) -> None:
        draft = self._folder / f".{card.backend_id}.{os.getpid()}"
        draft.write_text(json.dumps(asdict(card)))
        draft.replace(self._card(card.backend_id))

    async def _make_disk(self, card: _Card) -> str:
        """Why it could not be made; empty if it was."""
        image, sparse = self._disks(card.backend_id)
        draft = self._folder / f".{card.backend_id}.disk"
        if not self._qemu_img:
            await self._in_thread(lambda: _make_sparse(draft, sparse, card.size_gb))
            return ""
        command = (self._qemu_img, "create", "-q", "-f", "qcow2", str(draft), f"{card.size_gb}G")
        try:
            child = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as fault:
            return f"qemu-img cannot be started: {fault.strerror or fault}"
        try:
            async with asyncio.timeout(IMAGE_SECONDS):
                _, said = await child.communicate()
        except TimeoutError:
            raise AnswerLost(f"qemu-img took longer than {IMAGE_SECONDS:g} s") from None
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        if child.returncode:
            return f"qemu-img: {said.decode(errors='replace').strip()[:200] or child.returncode}"
        await self._in_thread(lambda: draft.replace(image))
        return ""


def _make_sparse(draft: Path, path: Path, size_gb: int) -> None:
    with draft.open("wb") as file:
        file.truncate(size_gb * GIB)
    draft.replace(path)
