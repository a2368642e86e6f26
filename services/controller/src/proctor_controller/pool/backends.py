"""Opens the backend that the settings name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from proctor_controller.domain.volumes.settings import CloudSettings, PoolSettings
from proctor_controller.volumes.backend import Backend
from proctor_controller.volumes.local import LocalBackend

Opener = Callable[[PoolSettings, str, Path | None], Backend]
"""Opens the backend: settings, installation, folder."""


class NoBackendError(Exception):
    """The settings name a backend that cannot be opened; the message says why."""


def open_backend(settings: PoolSettings, installation: str, folder: Path | None) -> Backend:
    """The backend, not connected yet. ``folder``: for the files of the local one. Raises NoBackendError."""
    if settings.backend == "cinder":
        # Imported here: its libraries are an extra, and slow to load.
        from proctor_common.service import ConfigurationError
        from proctor_controller.volumes.cinder.backend import open_cinder
        from proctor_controller.volumes.cinder.source import CloudSource

        try:
            return open_cinder(CloudSource(**_arguments(settings.cloud)), installation)
        except ConfigurationError as fault:
            raise NoBackendError(fault.message) from fault
    if folder is None:
        raise NoBackendError("the local backend needs a folder for its files: set pool_folder")
    return LocalBackend(folder, installation, settings.local)


def _arguments(cloud: CloudSettings) -> dict[str, Any]:
    """The cloud's arguments for the legacy names; empty ones are left to clouds.yaml and ``OS_*``."""
    given = {
        "cloud": cloud.cloud,
        "auth_url": cloud.auth_url,
        "user": cloud.auth_user,
        "password": cloud.auth_passwd,
        "project": cloud.auth_project,
        "user_domain": cloud.auth_domain,
        "project_domain": cloud.auth_domain,
        "region": cloud.region,
        "interface": cloud.interface,
        "cacert": cloud.cacert,
    }
    return {name: value for name, value in given.items() if value}
