"""The backend `cinder` on a test server."""

from typing import Any

from proctor_controller.volumes.cinder.backend import CinderBackend, open_cinder
from proctor_controller.volumes.cinder.source import CloudSource
from support.cloud import Cloud


def source_of(cloud: Cloud, **changes: Any) -> CloudSource:
    """The account `member`, as the pool's own settings name it."""
    given: dict[str, Any] = {"auth_url": cloud.auth_url, "user": "member", "password": "member", "project": "lab"}
    return CloudSource(**{**given, "connect_timeout": 2.0, "call_timeout": 5.0, **changes})


def backend_on(cloud: Cloud, installation: str, **changes: Any) -> CinderBackend:
    return open_cinder(source_of(cloud, **changes), installation)
