"""The source of the pool's settings: one file, read at the start and on request; a file with faults is refused."""

from collections.abc import Mapping
from pathlib import Path

import structlog

from proctor_controller.domain.volumes.settings import MAX_TEXT, BadPoolSettings, PoolSettings, parse_pool

log = structlog.get_logger(__name__)


def default_backend(environ: Mapping[str, str]) -> str:
    """The backend of a file that names none: ``cinder`` if the environment names a cloud."""
    return "cinder" if environ.get("OS_AUTH_URL") or environ.get("OS_CLOUD") else "local"


class PoolSource:
    """The file of one controller. ``settings``: the last valid ones; without a file there are no pools."""

    def __init__(self, path: Path | None, *, default_backend: str = "") -> None:
        self.path = path
        self.settings = PoolSettings()
        self._default_backend = default_backend
        self._shown: tuple[str, ...] = ()

    def check(self) -> PoolSettings:
        """The settings in the file now. Raises BadPoolSettings; then ``settings`` stay unchanged."""
        if self.path is None:
            return self.settings
        try:
            with self.path.open(encoding="utf-8") as file:
                text = file.read(MAX_TEXT + 1)
        except (OSError, UnicodeDecodeError) as fault:
            raise BadPoolSettings([f"cannot read {self.path}: {fault}"]) from fault
        self.settings = parse_pool(text, default_backend=self._default_backend)
        if self.settings.notes != self._shown:
            self._shown = self.settings.notes
            for note in self._shown:
                log.warning("pool_setting", note=note)
        return self.settings

    def read(self) -> PoolSettings:
        """The settings in the file now, or, if they are refused, the former ones."""
        try:
            return self.check()
        except BadPoolSettings as fault:
            log.error("pool_settings_refused", file=str(self.path), faults=fault.faults)
            return self.settings
