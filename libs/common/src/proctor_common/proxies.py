"""The proxy from the environment for an address; none for loopback. No I/O."""

import ipaddress
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

KINDS = ("http", "https")
"""Permitted schemes of a proxy's address."""
_OF_SOCKETS = {"ws": "http", "wss": "https"}


def proxy_for(url: str) -> str | None:
    """The proxy that ``HTTP_PROXY``, ``HTTPS_PROXY`` or ``ALL_PROXY`` (in either case) name for ``url``, as a URL;
    None: none.

    A websocket uses the proxy of the same address over HTTP. No proxy is used for this machine itself, nor for what
    ``NO_PROXY`` names: host names with all below them, addresses, networks (``10.0.0.0/8``), each with or without a
    port, or ``*``. Raises ValueError with the variable's name if the proxy cannot be used.
    """
    parts = urlsplit(url)
    scheme, host = _OF_SOCKETS.get(parts.scheme, parts.scheme), parts.hostname or ""
    named = getproxies_environment()
    kind = scheme if named.get(scheme) else "all"
    proxy = named.get(kind)
    port = parts.port or (443 if scheme == "https" else 80)
    if not proxy or is_loopback(host) or _is_excepted(host, port, named.get("no", "")):
        return None
    whole = proxy if "://" in proxy else f"http://{proxy}"
    try:
        found = urlsplit(whole)
        usable = found.scheme in KINDS and bool(found.hostname) and (found.port is None or found.port > 0)
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(f"{kind}_proxy names no proxy that can be used: it looks like http://proxy.example:3128")
    return whole


def is_loopback(host: str) -> bool:
    """Whether the host name or address itself means this machine."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_unspecified


def _is_excepted(host: str, port: int, excepted: str) -> bool:
    entries = [entry.strip().removeprefix("*.") for entry in excepted.split(",")]
    if "*" in entries or proxy_bypass(f"{host}:{port}", {"no": ",".join(entries)}):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return any(_holds(entry, address) for entry in entries)


def _holds(entry: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return address in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        return False
