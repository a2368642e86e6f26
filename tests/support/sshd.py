"""SSH servers for tests: OpenSSH's sshd where it is installed."""

import getpass
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from support.folders import remove_tree, short_dir
from support.processes import MARK_NAME, Child, Processes, free_port, is_listening
from support.wait import eventually_sync

_CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
PidFile {folder}/sshd.pid
AuthorizedKeysFile {folder}/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
PermitUserEnvironment no
UseDNS no
PrintMotd no
PrintLastLog no
MaxStartups 1000
MaxSessions 1000
LogLevel VERBOSE
Subsystem sftp internal-sftp
SetEnv {mark_name}={mark} SHLVL=1
"""
# SHLVL: bash takes the session for a nested shell and reads no ~/.bashrc, which can cost 100 ms a command.


@dataclass(frozen=True)
class SshTarget:
    """All that a client needs: address, account, private key file, known_hosts file."""

    host: str
    port: int
    user: str
    key: Path
    known_hosts: Path


def find_sshd() -> Path | None:
    """OpenSSH's server; it must be started by its absolute path."""
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/sbin"))
    found = shutil.which("sshd", path=path)
    return Path(found).resolve() if found else None


def write_key(path: Path, comment: str = "test") -> str:
    """Write a new ed25519 private key (0600) and give its public half as one line."""
    key = asyncssh.generate_private_key("ssh-ed25519", comment)
    path.touch(mode=0o600)
    path.write_bytes(key.export_private_key())
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    return key.export_public_key().decode().strip()


class OpenSshServer:
    """sshd as the present user on a free port of 127.0.0.1; its own host key, one authorised client key."""

    def __init__(self) -> None:
        self.folder = short_dir("sshd")
        self.port = free_port()
        self._processes = Processes(self.folder)
        self._child: Child | None = None
        self.extra = ""
        """Further lines of its configuration."""
        client = write_key(self.folder / "client_key", "client")
        (self.folder / "authorized_keys").write_text(client + "\n")
        self.new_host_key()

    def new_host_key(self) -> str:
        """Make another host key (what a changed host looks like after `restart`); known_hosts is left as it was."""
        (self.folder / "host_key").unlink(missing_ok=True)
        public = write_key(self.folder / "host_key", "host")
        known = self.folder / "known_hosts"
        if not known.exists():
            known.write_text(f"[127.0.0.1]:{self.port} {public}\n")
        return public

    @property
    def target(self) -> SshTarget:
        return SshTarget(
            "127.0.0.1", self.port, getpass.getuser(), self.folder / "client_key", self.folder / "known_hosts"
        )

    @property
    def log(self) -> str:
        return self._processes.outputs()

    @property
    def child(self) -> Child:
        assert self._child is not None, "sshd has not been started"
        return self._child

    def start(self) -> "OpenSshServer":
        program = find_sshd()
        assert program is not None, "sshd is not installed"
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        config = self.folder / "sshd_config"
        text = _CONFIG.format(port=self.port, folder=self.folder, mark_name=MARK_NAME, mark=self._processes.mark)
        config.write_text(text + self.extra)
        self._child = self._processes.start([program, "-D", "-e", "-f", config], name="sshd")
        eventually_sync(self._ready, 15, "sshd to listen", retry_on=())
        return self

    def _ready(self) -> bool:
        if not self.child.alive:
            raise RuntimeError(f"sshd did not start\n{self.child.output}")
        return "Server listening" in self.child.stderr and is_listening(self.port)

    def kill(self) -> None:
        """SIGKILL to the listener and every session: what a host that is switched off looks like."""
        self._processes.end_all()

    def restart(self) -> None:
        self.kill()
        self.start()

    def sessions(self) -> dict[int, str]:
        """What runs below this server, its listener excepted: pid to command line."""
        return {pid: line for pid, line in self._processes.running().items() if pid != self.child.pid}

    def close(self) -> None:
        self._processes.end_all()
        remove_tree(self.folder)
