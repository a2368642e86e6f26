"""What those who call addresses that others chose have in common (extra ``[outbound]``): where an address leads, why a
call failed, and connections that go to the very addresses that were checked.
"""

import asyncio
import ipaddress
import os
from collections.abc import Callable, Iterable
from typing import Any

import httpcore

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def where_it_leads(text: str) -> Address:
    """The address that packets to this one come to in the end: an IPv4 address that is written or tunnelled as an IPv6
    one is that IPv4 address. Raises ValueError.
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def why(fault: BaseException) -> str:
    """What the operating system said of a connection: those above it only say that it did not work."""
    below: BaseException | None = fault
    while below is not None:
        if isinstance(below, OSError) and below.errno is not None:
            return os.strerror(below.errno)
        below = below.__cause__ or below.__context__
    return str(fault) or type(fault).__name__


class CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Looks names up itself and connects to the addresses that were looked at, so that no name can lead to one address
    when it is checked and to another when it is used.
    """

    def __init__(self, choose: Callable[[str, list[str]], Iterable[str]]) -> None:
        """``choose`` gets a host and its addresses, and gives those that may be tried, in order; what it raises ends
        the call.
        """
        self._choose = choose
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection to the first address that takes one. Raises httpcore.ConnectError."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=1)
        except OSError as fault:
            raise httpcore.ConnectError(f"no address for {host}: {fault.strerror or fault}") from fault
        last = httpcore.ConnectError(f"no address for {host}")
        for address in self._choose(host, list(dict.fromkeys(str(entry[4][0]) for entry in found))):
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except httpcore.ConnectError as fault:
                last = httpcore.ConnectError(why(fault))
        raise last

    async def sleep(self, seconds: float) -> None:
        """Wait between tries."""
        await asyncio.sleep(seconds)
