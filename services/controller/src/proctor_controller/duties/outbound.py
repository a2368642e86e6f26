"""One POST from the control plane to an address that a plan's author chose, if the settings allow it.

Names are looked up here and the connection goes to the address that was checked, so that a name cannot lead to one
address in the check and to another in the call. Redirects and proxies are not used, and the body of the answer is not
read.
"""

import asyncio
import ipaddress
import ssl
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

import httpcore

from proctor_common.outbound import CheckedNetwork, where_it_leads


class NotSent(Exception):
    """Why there is no answer; ``for_good``: a repeat would fail too."""

    def __init__(self, reason: str, *, for_good: bool = False) -> None:
        super().__init__(reason)
        self.for_good = for_good


class Allowed:
    """Where calls may go. ``entries``: host names, ``*.suffix``, addresses and networks that are always allowed;
    ``public``: public addresses too.
    """

    def __init__(self, entries: Iterable[str], *, public: bool) -> None:
        """Raises ValueError for an invalid entry."""
        self._names: set[str] = set()
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        self._public = public
        for entry in entries:
            try:
                self._networks.append(ipaddress.ip_network(entry, strict=False))
            except ValueError:
                name = entry.lower().rstrip(".")
                if not name.removeprefix("*.") or not set(name.removeprefix("*.")) <= _NAME:
                    raise ValueError(f"neither a host name nor a network: {entry}") from None
                self._names.add(name)

    def allows(self, host: str, address: str) -> bool:
        """Whether ``host``, found at ``address``, may be called."""
        name = host.lower().rstrip(".")
        parents = [f"*.{name[i + 1 :]}" for i, character in enumerate(name) if character == "."]
        if name in self._names or self._names.intersection(parents):
            return True
        plain = where_it_leads(address)
        if any(plain.version == network.version and plain in network for network in self._networks):
            return True
        return self._public and plain.is_global and not plain.is_multicast

    def choose(self, host: str, addresses: list[str]) -> list[str]:
        """Those of a host's addresses that may be called. Raises NotSent if there is none."""
        usable = [address for address in addresses if self.allows(host, address)]
        if not usable:
            raise NotSent(
                f"{host} is at {', '.join(addresses) or 'no address'}, where the controllers' settings let no webhook "
                "go (webhook_hosts, webhook_public)",
                for_good=True,
            )
        return usable


_NAME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-._")


class Outbound:
    """Makes calls; each on a connection of its own."""

    def __init__(self, allowed: Allowed, *, timeout: float) -> None:
        self._backend = CheckedNetwork(allowed.choose)
        self._timeout = timeout
        self._trust: ssl.SSLContext | None = None

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        """The answer's status. Raises NotSent."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise NotSent("its URL is neither http:// nor https://", for_good=True)
        if self._trust is None:
            self._trust = await asyncio.to_thread(ssl.create_default_context)
        given = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        try:
            async with asyncio.timeout(self._timeout):
                pool = httpcore.AsyncConnectionPool(
                    ssl_context=self._trust, max_connections=1, network_backend=self._backend
                )
                async with pool, pool.stream("POST", url, headers=given, content=body) as answer:
                    return int(answer.status)
        except TimeoutError:
            raise NotSent(f"no answer within {self._timeout:g} s") from None
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, ssl.SSLError) as fault:
            raise NotSent(str(fault) or type(fault).__name__) from None
        except (httpcore.UnsupportedProtocol, ValueError, TypeError) as fault:
            # TypeError: httpcore raises it for a URL that is not ASCII.
            raise NotSent(f"cannot be called: {fault}", for_good=True) from None
