"""Folders of a test run: all of them in one folder of its process, which the next run removes if this one is killed.

The process holds a lock on it while it lives. That tells what a dead run left from what a run beside this one uses.
"""

import atexit
import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from proctor_cli.local.processes import has_namespaces

PLACE = Path("/tmp")
PREFIX = "proctor-test-"
_has_namespaces = cache(has_namespaces)


@cache
def run_folder() -> Path:
    """The folder of this process. As root others may pass through it: PostgreSQL runs as somebody else."""
    sweep()
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=PLACE))
        with suppress(OSError):  # another run's sweep was faster than the lock
            _lock(folder)
            break
    folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
    atexit.register(_remove_own, folder, os.getpid())
    return folder


def short_dir(prefix: str, *, owner: int | None = None) -> Path:
    """A new private folder with a short path (UNIX sockets allow about 100 bytes), owned by uid `owner`.

    As root on a machine without user namespaces others may pass through it: `proctor up` could not use it otherwise.
    """
    path = Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=run_folder()))
    if owner is not None:
        os.chown(path, owner, owner)
    elif os.geteuid() == 0 and not _has_namespaces():
        path.chmod(0o711)
    return path


def remove_tree(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)


def sweep() -> None:
    """Remove what this user's runs left that were killed."""
    for folder in PLACE.glob(f"{PREFIX}*"):
        with suppress(OSError):
            held = _lock(folder)
            remove_tree(folder)
            os.close(held)


def _lock(folder: Path) -> int:
    """Hold a folder of this user until the descriptor is closed. Raises OSError where it is held, or is gone."""
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(held), folder.lstat()) or os.fstat(held).st_uid != os.geteuid():
            raise FileNotFoundError(folder)
    except OSError:
        os.close(held)
        raise
    return held


def _remove_own(folder: Path, pid: int) -> None:
    if os.getpid() == pid:  # not in a fork of it
        remove_tree(folder)
