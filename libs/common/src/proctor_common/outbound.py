"""Shared by callers of addresses that others chose (extra ``[outbound]``): where an address leads, why a call failed,
and connections to the addresses that were checked.
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
    """The final address of packets to this one: for an IPv4 address written or tunnelled as IPv6, the IPv4 address.
    Raises ValueError.
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def why(fault: BaseException) -> str:
    """The operating system's reason for a failed connection: exceptions above it say only that it failed."""
    below: BaseException | None = fault
    while below is not None:
        if isinstance(below, OSError) and below.errno is not None:
            return os.strerror(below.errno)
        below = below.__cause__ or below.__context__
    return str(fault) or type(fault).__name__


class CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Looks names up itself and connects to the addresses that were checked, so that a name cannot lead to one address
    in the check and to another in the call.
    """

    def __init__(self, choose: Callable[[str, list[str]], Iterable[str]]) -> None:
        """``choose`` gets a host and its addresses, and returns those to try, in order; its exceptions end the call."""
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
        """A connection to the first address that accepts one. Raises httpcore.ConnectError."""
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
