"""How client commands find the local system: a file in its data directory, and one in the default directory."""

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from proctor_cli.endpoint import ENDPOINT_FILE, default_data_dir
from proctor_cli.faults import CommandFault
from proctor_cli.init.files import replace
from proctor_cli.local.recovery import Process, find_process


@dataclass(frozen=True, slots=True)
class Pointer:
    """Content of the files: URL, token, the CA for https, and which launcher wrote it."""

    url: str
    token: str | None
    ca: Path | None
    data: Path

    def write(self, *, announce: bool = True) -> str | None:
        """Write the file in the data directory and, with ``announce``, in the default directory, unless another running
        system has put its own there: then returns that one's URL, which commands use by default. Raises CannotKeep for
        the first file.
        """
        me = find_process(os.getpid())
        text = json.dumps(
            {
                "url": self.url,
                "token": self.token,
                "ca": str(self.ca) if self.ca else None,
                "data": str(self.data),
                "launcher": [me.pid, me.started] if me else None,
            }
        )
        replace(self.data / ENDPOINT_FILE, text)
        default = default_data_dir()
        if not announce or default == self.data:
            return None
        if _is_anothers(default):
            return str(_read(default).get("url"))
        # If the home folder cannot be written, commands need PROCTOR_URL and PROCTOR_TOKEN, no more.
        with contextlib.suppress(OSError, CommandFault):
            default.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
            if default.stat().st_uid == os.geteuid():
                replace(default / ENDPOINT_FILE, text)
        return None

    def remove(self) -> None:
        """Remove the files of :meth:`write`."""
        for folder in {self.data, default_data_dir()}:
            if _data_of(folder) == str(self.data):
                with contextlib.suppress(OSError):
                    (folder / ENDPOINT_FILE).unlink()


def _read(folder: Path) -> dict[str, object]:
    try:
        found = json.loads((folder / ENDPOINT_FILE).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _data_of(folder: Path) -> object:
    return _read(folder).get("data")


def _is_anothers(folder: Path) -> bool:
    match _read(folder).get("launcher"):
        case [int(pid), int(started)]:
            return pid != os.getpid() and Process(pid, started).is_alive
        case _:
            return False
