"""Types of the bus's interface. No I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import ip_address
from urllib.parse import urlsplit


@dataclass(frozen=True)
class BusOptions:
    """How to reach the bus. Times in seconds."""

    servers: tuple[str, ...]
    name: str
    inbox_prefix: str = "_INBOX"
    """One that the server permits to this client, such as ``_INBOX_api``."""
    nkey_seed: str | None = field(default=None, repr=False)
    """The seed's text (from a 0600 file), never a path."""
    ca_file: str | None = None
    auth_token: str | None = field(default=None, repr=False)
    """Goes to the auth callout beside the seed."""
    connect_timeout: float = 5.0
    start_timeout: float = 30.0
    ping_interval: float = 10.0
    ping_timeout: float = 5.0
    reconnect_wait: tuple[float, float] = (0.1, 2.0)
    """The least and the most time between two tries; each wait is drawn at random below twice the former limit."""
    allow_plaintext: bool = False

    @property
    def beyond_loopback(self) -> bool:
        """Whether messages leave this machine."""
        return not all(_is_loopback(server) for server in self.servers)

    @property
    def shown(self) -> str:
        """The servers for a message or a log, without user and password."""
        return ", ".join(server.rpartition("@")[2] for server in self.servers)

    @property
    def needs_tls(self) -> bool:
        """Whether a server without TLS is refused."""
        asked = self.ca_file is not None or any(server.startswith("tls://") for server in self.servers)
        return asked or (self.beyond_loopback and not self.allow_plaintext)


def _is_loopback(server: str) -> bool:
    host = urlsplit(server if "://" in server else f"nats://{server}").hostname or ""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Message:
    """A core message. ``reply``: None if no answer is expected."""

    subject: str
    data: bytes
    reply: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StreamMessage:
    """A message from a durable consumer. ``deliveries`` is 1 the first time."""

    subject: str
    data: bytes
    headers: Mapping[str, str]
    seq: int
    deliveries: int
    pending: int
    time: datetime


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do with a stream message: use :data:`ACK`, :data:`TERMINATE` or :func:`RETRY`."""

    word: bytes
    delay: float = 0.0


ACK = Verdict(b"+ACK")
TERMINATE = Verdict(b"+TERM")


def RETRY(delay: float) -> Verdict:
    """Deliver the message again after ``delay`` seconds."""
    return Verdict(b"-NAK", delay)


@dataclass(frozen=True, slots=True)
class Appended:
    """JetStream has the message; ``duplicate``: one with this message id was there already (and ``seq`` is its)."""

    stream: str
    seq: int
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Stored:
    """A message read from a stream. ``num_pending``: how many more match the filter after this one."""

    seq: int
    subject: str
    data: bytes
    time: datetime
    num_pending: int
    headers: Mapping[str, str]


@dataclass(frozen=True)
class RePublish:
    """Core notification of each stored message; ``headers_only``: without the payload."""

    source: str
    destination: str
    headers_only: bool = True


@dataclass(frozen=True)
class StreamSpec:
    """Configuration of a stream. ``max_age``, ``duplicate_window`` in seconds, sizes in bytes; -1: no limit."""

    name: str
    subjects: tuple[str, ...]
    max_bytes: int = -1
    max_age: float = 0.0
    max_msg_size: int = -1
    duplicate_window: float = 120.0
    discard: str = "old"
    retention: str = "limits"
    allow_direct: bool = False
    compression: str = "none"
    replicas: int = 1
    republish: RePublish | None = None
    description: str = ""


@dataclass(frozen=True)
class ConsumerSpec:
    """A durable pull consumer with explicit acks. ``ack_wait`` in seconds; ``max_deliver`` -1: no limit."""

    stream: str
    durable: str
    filter_subject: str | None = None
    ack_wait: float = 30.0
    max_ack_pending: int = 1000
    max_deliver: int = -1
    description: str = ""


@dataclass(frozen=True, slots=True)
class StreamState:
    """Counts of a stream from the server."""

    messages: int
    bytes: int
    first_seq: int
    last_seq: int
    consumers: int
