"""The agents' target: address and keys of the loopback SSH server. Imports no asyncssh."""

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class SshTarget:
    """The loopback SSH server, as an agent's target."""

    port: int
    user: str
    key: Path
    known_hosts: Path


def target_in(folder: Path, port: int) -> SshTarget:
    """The target with its keys in ``folder``, which need not exist yet."""
    return SshTarget(port, user_name(), folder / "client_key", folder / "known_hosts")


def user_name() -> str:
    """The account's name; its number if it has none."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
