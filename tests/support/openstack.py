"""The backend `cinder` on a test server, or on the cloud that OS_* or clouds.yaml name."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from proctor_controller.volumes.backend import NotNow
from proctor_controller.volumes.cinder.backend import CinderBackend, open_cinder
from proctor_controller.volumes.cinder.source import CloudSource, names_a_cloud
from support.cloud import Cloud
from support.pool import LEGACY_SETTINGS
from support.wait import eventually

LEGACY_TYPES = ("igw", "bgw", "dhcp", "cast")


def source_of(cloud: Cloud, **changes: Any) -> CloudSource:
    """The account `member`, as the pool's own settings name it."""
    given: dict[str, Any] = {"auth_url": cloud.auth_url, "user": "member", "password": "member", "project": "lab"}
    return CloudSource(**{**given, "connect_timeout": 2.0, "call_timeout": 5.0, **changes})


def backend_on(cloud: Cloud, installation: str, **changes: Any) -> CinderBackend:
    return open_cinder(source_of(cloud, **changes), installation)


@asynccontextmanager
async def named_cloud(installation: str, **changes: Any) -> AsyncIterator[CinderBackend]:
    """The backend on the cloud that the environment names; skips where none is. Deletes at the end what it made."""
    source = CloudSource(**changes)
    if not names_a_cloud(source, os.environ):
        pytest.skip("no cloud is named: set OS_CLOUD (clouds.yaml) or OS_AUTH_URL and the rest of OS_*")
    backend = open_cinder(source, installation)
    try:
        yield backend
    finally:
        await eventually(lambda: _cleared(backend), 60, "the volumes of the test to be gone")
        await backend.close()


async def _cleared(backend: CinderBackend) -> bool:
    left = await backend.list_ours()
    for volume in left:
        try:
            await backend.delete(volume.backend_id)
        except NotNow:
            continue
    return not left


async def volume_types(backend: CinderBackend) -> list[str]:
    """The types that this account may use, those of the cloud's own making (``__DEFAULT__``) last."""
    answer = await backend.storage.call("GET", "/types", doing="list the volume types")
    names = [str(kind["name"]) for kind in answer.body["volume_types"]]
    return sorted(names, key=lambda name: (name.startswith("__"), name))


@dataclass(frozen=True)
class CinderCloud:
    """The legacy table on block storage. ``auth_url``: of a test server; else what the environment names."""

    name: str
    types: tuple[str, str, str, str]
    patience: float
    auth_url: str = ""

    def ini(self, first: int, second: int, extra: str = "") -> str:
        a, b, c, d = self.types
        settings = LEGACY_SETTINGS.format(a=a, b=b, c=c, d=d, first=first, second=second)
        if self.auth_url:
            settings = f"{settings.replace('auth_project=admin', 'auth_project=lab')}auth_url={self.auth_url}\n"
        return f"{settings}\n[pool]\nbackend=cinder\n{extra}\n"


async def named_types() -> tuple[str, str, str, str]:
    """Four types of the cloud that the environment names, legacy ones where it has them; skips where it has fewer."""
    async with named_cloud("proctor-test-types") as backend:
        found = await volume_types(backend)
    usable = sorted((name for name in found if name[0].isalnum()), key=lambda name: (name not in LEGACY_TYPES, name))
    if len(usable) < 4:
        pytest.skip(f"the tests need four volume types; this account sees {', '.join(found) or 'none'}")
    return usable[0], usable[1], usable[2], usable[3]
