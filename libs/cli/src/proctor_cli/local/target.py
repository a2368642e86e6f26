"""The agents' target: where the loopback SSH server is and what it takes to be let in. No asyncssh here."""

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
    """The target whose keys stand in ``folder``, made or not yet."""
    return SshTarget(port, user_name(), folder / "client_key", folder / "known_hosts")


def user_name() -> str:
    """The account's name; its number where it has none."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
