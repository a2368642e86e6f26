"""The data directory of a local system: its folders, and the lock on it."""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from proctor_cli.init.files import CannotKeep, make_private_folder
from proctor_cli.local.faults import CannotStart

MAX_LOG_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class DataDir:
    """``root`` holds everything; secrets and each process's files have private folders in it."""

    root: Path

    @property
    def secrets(self) -> Path:
        """The files of ``proctor init``."""
        return self.root / "secrets"

    @property
    def nats(self) -> Path:
        """nats-server's configuration and its JetStream store."""
        return self.root / "nats"

    @property
    def postgres(self) -> Path:
        """PostgreSQL's data; owned by the account that PostgreSQL runs as."""
        return self.root / "postgres"

    @property
    def ssh(self) -> Path:
        """The loopback SSH server's host key and its one client key."""
        return self.root / "ssh"

    @property
    def volumes(self) -> Path:
        """The volume pool's disks, if its backend is the local one."""
        return self.root / "volumes"

    @property
    def logs(self) -> Path:
        """The output of the children."""
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """Valid for this start only: ports, children."""
        return self.root / "run"

    @property
    def children(self) -> Path:
        """The record of the launcher's children."""
        return self.run / "children.json"

    @property
    def mark(self) -> str:
        """Value of an environment variable by which commands of the loopback SSH server are recognized."""
        return str(self.root)

    def agent(self, host: str) -> Path:
        """An agent's settings, identity, journal and spool."""
        return self.root / "agents" / host

    def config(self, service: str) -> Path:
        """A service's settings."""
        return self.root / f"{service}.toml"

    def log(self, child: str) -> Path:
        """A child's log file."""
        return self.logs / f"{child}.log"


def open_data_dir(path: Path) -> DataDir:
    """Make the folders. Raises CannotStart."""
    try:
        if not path.exists():
            # For root, PostgreSQL runs as another user, who must be able to reach its folder. Private files have
            # folders of their own that nobody else may enter.
            path.mkdir(parents=True)
            path.chmod(0o711 if os.geteuid() == 0 else 0o700)
        root = path.resolve(strict=True)
        if not root.is_dir():
            raise CannotStart(f"the data directory {path} is not a folder")
        if root.stat().st_uid != os.geteuid():
            raise CannotStart(f"the data directory {path} belongs to another user")
        data = DataDir(root)
        for folder in (data.secrets, data.nats, data.ssh, data.logs, data.run, root / "agents"):
            make_private_folder(folder)
        for log in data.logs.glob("*.log"):
            _rotate(log)
    except CannotKeep as fault:
        raise CannotStart(str(fault)) from None
    except OSError as fault:
        raise CannotStart(f"cannot use the data directory {path}: {fault.strerror}") from None
    return data


@contextmanager
def hold(path: Path) -> Iterator[None]:
    """Lock the data directory against another launcher, until the end of the block or of this process.

    Raises CannotStart, which names the holder.
    """
    lock = path / "lock"
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as fault:
        raise CannotStart(f"cannot use the data directory {path}: {fault.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
            by = f" (pid {holder})" if holder.isdigit() else ""
            raise CannotStart(f"the data directory {path} is in use by another `proctor up`{by}") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def may_others_enter(path: Path) -> bool:
    """Whether any user may reach the content of ``path``."""
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (path, *path.parents))


def may_others_read(folder: Path) -> bool:
    """Whether any user may read everything in ``folder`` that its owner may. False if there is a link, which may lead
    elsewhere.
    """
    paths = (os.path.join(place, name) for place, folders, files in os.walk(folder) for name in (*folders, *files))
    modes = (os.lstat(path).st_mode for path in paths)
    return may_others_enter(folder) and not any(stat.S_ISLNK(mode) or mode >> 6 & ~mode & 0o5 for mode in modes)


def _rotate(log: Path) -> None:
    if log.stat().st_size > MAX_LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
