"""Settings: ``PROCTOR_API_<NAME>`` in the environment, ``<name>`` in the TOML file of ``--config``."""

import ipaddress
from pathlib import Path
from typing import ClassVar, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, SecretStr, model_validator

from proctor_common.settings import ServiceSettings

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LOOPBACK_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})


class ApiSettings(ServiceSettings):
    """Times in seconds, sizes in bytes. A secret may also be given as ``<name>_file``."""

    SERVICE: ClassVar[str] = "api"

    http: str = "127.0.0.1:8774"
    """Address and port to listen on; ``[::1]:8774`` for IPv6."""
    metrics_http: str | None = None
    """A second address that serves only ``/metrics``, without token and encryption."""
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    allow_plaintext: bool = False
    """Allow unencrypted HTTP and NATS beyond loopback; logs a warning at each start."""

    database_url: str
    """``postgresql://user@host:port/name``, by socket ``postgresql://user@/name?host=/folder``."""
    database_password: SecretStr | None = None
    database_pool: int = Field(default=8, ge=1, le=200)

    nats_urls: tuple[str, ...] = ("nats://127.0.0.1:4222",)
    nats_nkey: SecretStr | None = None
    """The api's nkey seed."""
    nats_ca_file: Path | None = None
    nats_inbox: str = Field(default="_INBOX_api", pattern=r"^[A-Za-z0-9_-]{1,64}$")

    first_token: SecretStr | None = None
    """Stored as an admin's token if the database has no valid one."""
    no_auth: bool = False
    """Make every caller an admin. Only allowed on a loopback address."""
    anonymous: Literal["none", "viewer", "results"] = "none"
    """What a caller without a token may do: nothing, read, or read and create records of the Test API."""
    tryout: Literal["all", "read"] = "all"
    """What ``/docs`` offers to try out: ``read`` removes the button of everything that writes."""
    public_url: str | None = None
    """The URL at which browsers find the api; URLs in answers begin with it. None: the request's own."""
    origins: tuple[str, ...] = ()
    """More origins whose pages may use the session cookie."""

    start_timeout: float = Field(default=30.0, ge=0, le=600)
    """How long to wait at the start for NATS and PostgreSQL."""
    call_timeout: float = Field(default=10.0, gt=0, le=60)
    """How long a request to the controllers may take, all tries together."""
    body_limit: int = Field(default=1024 * 1024, ge=1024)
    result_limit: int = Field(default=16 * 1024 * 1024, ge=1024)
    """Limit of the body of one result of the Test API."""
    timezone: str = "UTC"
    """The zone, such as ``Europe/Berlin``, of Test API dates without one, and of creation dates."""
    root_path: str = Field(default="", pattern=r"^(/[A-Za-z0-9._~-]+)*$")
    """The path below which a proxy serves the api, such as ``/test``; the proxy may strip it or not."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks whose ``X-Forwarded-*`` headers are trusted."""
    token_cache: float = Field(default=3.0, ge=0, le=10)
    """How long a token is cached."""
    token_check: float = Field(default=60.0, gt=0)
    """How often the token of an open websocket is checked again."""
    session_hours: float = Field(default=12.0, gt=0, le=24 * 30)
    login_tries: int = Field(default=10, ge=1)
    """Tries per minute and address at ``/v1/session`` and ``/v1/agents/join``."""
    sockets_per_token: int = Field(default=200, ge=1)
    heartbeat: float = Field(default=15.0, gt=0)
    slow_viewer: float = Field(default=60.0, gt=0)
    """A websocket whose client has read nothing for this long is closed with 4408; a streamed answer ends."""
    record_check: float = Field(default=15.0, gt=0)
    """How often a tail asks a controller for its run without having been notified of a change."""
    log_tick: float = Field(default=1.0, gt=0, le=60)
    """How often a tail looks into the stream without having been notified."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of ``http``."""
        return split_address(self.http)

    @property
    def link_base(self) -> str:
        """The beginning of links: ``public_url``, else the address listened on; "" if that names no host."""
        if self.public_url is not None:
            return self.public_url.rstrip("/")
        host, port = self.address
        if host in {"0.0.0.0", "::"} or port == 0:  # noqa: S104 - these name no host
            return ""
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self.tls else 'http'}://{shown}:{port}"

    @property
    def tls(self) -> bool:
        """Whether the api serves HTTPS."""
        return self.tls_cert_file is not None

    @property
    def zone(self) -> ZoneInfo:
        """``timezone`` as a zone."""
        return ZoneInfo(self.timezone)

    @property
    def proxies(self) -> tuple[Network, ...]:
        """``trusted_proxies`` as networks."""
        return tuple(ipaddress.ip_network(text, strict=False) for text in self.trusted_proxies)

    @property
    def plaintext_faults(self) -> list[str]:
        """Messages about unencrypted connections beyond loopback; empty if there are none."""
        found = []
        if not self.tls and not is_loopback(self.address[0]):
            found.append(f"http {self.http} is beyond loopback and has no TLS")
        if self.metrics_http is not None and not is_loopback(split_address(self.metrics_http)[0]):
            found.append(f"metrics_http {self.metrics_http} is beyond loopback, without TLS and token")
        for parts in map(urlsplit, self.nats_urls):
            protected = self.nats_ca_file is not None or parts.scheme in {"tls", "wss"}
            if not protected and not is_loopback(parts.hostname or ""):
                found.append("nats_urls go beyond loopback, without tls:// and without nats_ca_file")
        return found

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        host, _ = split_address(self.http)
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file belong together")
        if self.no_auth and not is_loopback(host):
            raise ValueError(f"no_auth makes every caller admin: http must be a loopback address, not {host}")
        if self.plaintext_faults and not self.allow_plaintext:
            raise ValueError(f"{'; '.join(self.plaintext_faults)} (allow_plaintext = true allows it)")
        try:
            _ = self.zone
        except (ZoneInfoNotFoundError, ValueError, OSError) as fault:
            raise ValueError(f"timezone: no such zone: {self.timezone}") from fault
        for text in self.trusted_proxies:
            try:
                ipaddress.ip_network(text, strict=False)
            except ValueError as fault:
                raise ValueError(f"trusted_proxies: neither an address nor a network: {text}") from fault
        for url in (self.public_url, *self.origins):
            if url is not None and (urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).netloc):
                raise ValueError(f"not an http or https address: {url}")
        return self


def split_address(text: str) -> tuple[str, int]:
    """Host and port of ``host:port`` or ``[v6]:port``. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not colon or not host or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"not ADDRESS:PORT: {text}")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether the name or address can only mean this machine."""
    if host.lower() in LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
