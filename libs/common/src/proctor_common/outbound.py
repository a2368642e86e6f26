"""What those who call addresses that others chose have in common: where one leads, and why a call failed. Pure."""

import ipaddress
import os

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
