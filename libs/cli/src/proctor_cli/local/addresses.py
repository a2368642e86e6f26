"""Addresses and ports: the api's from ``--http``, and private ports for NATS and SSH."""

import errno
import json
import random
import re
import socket
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TypeGuard

from proctor_cli.faults import Usage
from proctor_cli.init.files import replace
from proctor_cli.local.faults import CannotStart

# Below the kernel's range for outgoing connections: none of them takes a port while its server restarts.
PRIVATE_PORTS = range(20000, 32000)
_ADDRESS = re.compile(r"^(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]*)):([0-9]{1,5})\Z")


@dataclass(frozen=True, slots=True)
class HttpAddress:
    """Where the api listens: an IP address or ``localhost``, and a port (0: a free one is chosen)."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether it can be reached from this machine only."""
        return self.host == "localhost" or ip_address(self.host).is_loopback

    @property
    def text(self) -> str:
        """``address:port``."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def reached_at(self) -> str:
        """``address:port`` for a client on this machine; loopback instead of an address that means all."""
        host = self.host
        if host != "localhost" and ip_address(host).is_unspecified:
            host = "::1" if ":" in host else "127.0.0.1"
        return HttpAddress(host, self.port).text


def parse_http(text: str) -> HttpAddress:
    """``ADDR:PORT``, ``[V6]:PORT``, ``:PORT`` (loopback) or ``PORT``. Raises Usage."""
    found = _ADDRESS.match(text if ":" in text else f":{text}")
    if found is None or int(found[3]) > 65535:
        raise Usage(f"--http: not ADDR:PORT: {text} (like 127.0.0.1:8774)")
    host = found[1] or found[2] or "127.0.0.1"
    if host != "localhost":
        try:
            host = str(ip_address(host))
        except ValueError:
            raise Usage(f"--http: not an IP address: {host} (like 127.0.0.1:8774)") from None
    return HttpAddress(host, int(found[3]))


def claim_http(address: HttpAddress) -> HttpAddress:
    """The address with a port that is free now. Raises CannotStart if it is in use or not this machine's."""
    if address.port == 0:
        return HttpAddress(address.host, _free_port(address.host))
    fault = _try(address.host, address.port)
    if fault is None:
        return address
    if fault.errno == errno.EADDRINUSE:
        raise CannotStart(f"{address.text} is taken by another program; give another one: --http {address.host}:PORT")
    raise CannotStart(f"cannot listen on {address.text}: {fault.strerror}")


def private_ports(file: Path, names: tuple[str, ...]) -> dict[str, int]:
    """A free loopback port for each name; stored in ``file``, so that the next start uses the same if they are free."""
    try:
        former = json.loads(file.read_text())
    except (OSError, ValueError):
        former = {}
    ports: dict[str, int] = {}
    for name in names:
        port = former.get(name) if isinstance(former, dict) else None
        if not _is_usable(port, ports.values()):
            port = _free_port("127.0.0.1", ports.values())
        ports[name] = port
    replace(file, json.dumps(ports))
    return ports


def _is_usable(port: object, taken: Collection[int]) -> TypeGuard[int]:
    return isinstance(port, int) and port in PRIVATE_PORTS and port not in taken and _try("127.0.0.1", port) is None


def _free_port(host: str, taken: Collection[int] = ()) -> int:
    for _ in range(1000):
        port = random.choice(PRIVATE_PORTS)  # noqa: S311 - no secret
        if port not in taken and _try(host, port) is None:
            return port
    raise CannotStart(f"no free port on {host}")


def _try(host: str, port: int) -> OSError | None:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As servers do: a port in TIME_WAIT counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as fault:
        return fault
    return None
