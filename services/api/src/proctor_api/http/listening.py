"""Binds the address before anything heavy is imported, so that an address in use is reported at once."""

import errno
import socket

from proctor_common.service import StartError


def bind(address: tuple[str, int]) -> socket.socket:
    """A socket that listens on the address. Raises StartError."""
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only if the protocol is given; without it an answer takes 40 ms more.
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if not _resolves(host, family):
            raise StartError(f"cannot listen on {host}: no such address")
        found.bind((host, port))
        # Two processes may bind the port, but only one may listen on it.
        found.listen(2048)
    except OSError as fault:
        found.close()
        if fault.errno == errno.EADDRINUSE:
            raise StartError(
                f"{host}:{port} is taken by another process; choose another address with `http`"
            ) from fault
        raise StartError(f"cannot listen on {host}:{port}: {fault.strerror or fault}") from fault
    except StartError:
        found.close()
        raise
    found.setblocking(False)
    return found


def _resolves(host: str, family: int) -> bool:
    try:
        return bool(socket.getaddrinfo(host, None, family, socket.SOCK_STREAM))
    except (socket.gaierror, UnicodeError):
        return False
