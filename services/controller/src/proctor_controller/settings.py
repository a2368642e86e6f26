"""Settings of a controller: ``PROCTOR_CONTROLLER_<NAME>`` or a TOML file. No I/O.

Every secret may be read from a file: ``database_password_file``, ``nats_nkey_file``, ``system_nkey_file``,
``account_key_file``, ``seal_key_file``. Times are in seconds, sizes in bytes.
"""

from ipaddress import ip_address
from pathlib import Path
from typing import ClassVar, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator

from proctor_common.settings import ServiceSettings

GIB = 1024**3
DAY = 86_400.0


class ControllerSettings(ServiceSettings):
    """The settings of a controller."""

    SERVICE: ClassVar[str] = "controller"

    database_url: str
    """``postgresql://user@host:port/name``, or ``postgresql://user@/name?host=/folder`` for a socket."""
    database_password: SecretStr | None = None
    database_pool_size: int = Field(default=8, ge=1, le=200)

    nats_urls: list[str] = Field(default=["nats://127.0.0.1:4222"], min_length=1)
    nats_nkey: SecretStr | None = None
    """Seed (``SU…``) of the controllers' static user."""
    nats_ca_file: Path | None = None
    system_nkey: SecretStr | None = None
    """Seed of a user of the system account: it closes the connections of removed agents."""
    account_key: SecretStr | None = None
    """Seed (``SA…``) of the account that issues the users of agents. Without it agents are not let in by this
    controller (a server without the auth callout)."""
    account_name: str = "PROCTOR"
    agent_nats_urls: list[str] = []
    """The bus's URLs for agents, if they differ from ``nats_urls``."""
    allow_plaintext: bool = False
    start_timeout: float = Field(default=30.0, ge=0, le=600)
    """How long to wait at the start for NATS and PostgreSQL."""

    seal_key: SecretStr | None = None
    """Keys that seal stored secrets, ``<id>:<base64 of 32 bytes>`` a line; the first one seals."""
    secrets_dir: Path | None = None
    """A folder with one file a secret, by the names that plans refer to them: in a folder for each group, and at the
    top for runs without a group and for the groups that its file ``shared`` names."""
    metrics_http: str | None = None
    """``address:port`` of ``/healthz`` and ``/metrics``."""

    pool_file: Path | None = None
    """Settings of the volume pool, in the legacy INI form. Read again on SIGHUP; without it there are no pools."""
    pool_folder: Path | None = None
    """Where the backend ``local`` keeps the files of volumes."""

    heartbeat: float = Field(default=5.0, gt=0)
    suspect_after: float = Field(default=15.0, gt=0)
    lost_after: float = Field(default=60.0, gt=0)
    lost_grace: float = Field(default=600.0, ge=0)
    """How long steps of a lost agent may still return."""
    duty_lease: float = Field(default=6.0, gt=0)
    """How long a controller holds a periodic job; it renews after a third."""
    sweep_interval: float = Field(default=1.0, gt=0)
    watchdog_interval: float = Field(default=1.0, gt=0)
    log_sweep_interval: float = Field(default=60.0, gt=0)
    stranger_age: float = Field(default=300.0, ge=0)
    """How old a log of an unknown attempt must be before it is purged."""
    enrolment_lifetime: float = Field(default=900.0, gt=0)
    agent_user_lifetime: float = Field(default=12 * 3600.0, gt=0)
    """After this time the server closes an agent's connection, and the agent must authenticate again."""

    schedule_interval: float = Field(default=1.0, gt=0)
    schedule_grace: float = Field(default=60.0, gt=0)
    """How late a tick of a schedule may still start a run; a later one counts as missed."""
    webhook_interval: float = Field(default=1.0, gt=0)
    webhook_timeout: float = Field(default=10.0, gt=0, le=300)
    webhook_give_up: float = Field(default=DAY, ge=0)
    """How long after a run's end its webhook is tried."""
    webhook_hosts: list[str] = []
    """Where webhooks may go besides public addresses: host names, ``*.suffix``, addresses, networks."""
    webhook_public: bool = True
    """Whether they may go to public addresses that ``webhook_hosts`` does not name."""

    log_max_bytes: int = Field(default=20 * GIB, gt=0)
    log_max_age: float = Field(default=30 * DAY, gt=0)
    attempt_log_limit: int = Field(default=2 * GIB, gt=0)
    event_max_bytes: int = Field(default=GIB, gt=0)
    stream_replicas: int = Field(default=1, ge=1, le=5)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.heartbeat < self.suspect_after < self.lost_after:
            raise ValueError("heartbeat, suspect_after and lost_after must rise in this order")
        if not self.allow_plaintext and self.plain_urls():
            raise ValueError(
                f"nats_urls: {self.plain_urls()[0]} is beyond loopback and not protected by TLS; "
                "give nats_ca_file or a tls:// address, or set allow_plaintext = true"
            )
        return self

    def plain_urls(self) -> list[str]:
        """URLs of the bus beyond loopback without encryption."""
        if self.nats_ca_file is not None:
            return []
        return [url for url in self.nats_urls if not _is_protected(url)]


def _is_protected(url: str) -> bool:
    parts = urlsplit(url if "://" in url else f"nats://{url}")
    if parts.scheme in {"tls", "wss"}:
        return True
    host = parts.hostname or ""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
