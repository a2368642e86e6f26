"""Settings of an agent: ``PROCTOR_AGENT_<NAME>`` or a TOML file. No I/O.

Host name, groups and labels are not settings: they come from the enrolment. Times in seconds, sizes in bytes.
"""

from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from proctor_agent.attempt import Target
from proctor_common.settings import ServiceSettings

MIB = 1024**2


class TargetSettings(BaseModel):
    """One SSH endpoint. Without ``known_hosts_file`` the user's own is used; the check cannot be switched off."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(min_length=1, max_length=255)
    port: int = Field(default=22, ge=1, le=65535)
    user: str = ""
    key_file: Path | None = None
    known_hosts_file: Path | None = None
    waiting_shell: bool = True
    """Start the next command's shell in advance, after each command; it waits 30 s at most."""
    legacy_algorithms: bool = False
    """Also accept ciphers, key exchanges and host keys that are no longer safe, for a target that has no others."""
    connect_timeout: float = Field(default=10.0, gt=0, le=600)
    """For the TCP connection, name look-up included."""
    login_timeout: float = Field(default=20.0, gt=0, le=600)
    """For key exchange and login."""
    start_timeout: float = Field(default=30.0, gt=0, le=600)
    """From sending a command until the target says that it starts: the time of the login shell."""
    reconnect_timeout: float = Field(default=60.0, ge=0, le=3600)
    """After a connection was lost while a command ran: how long, beyond the step's grace, to try the target again to
    end what the command left."""
    connection_age: float = Field(default=900.0, ge=1, le=86400)
    """A connection takes commands for so long; a new one is made before that. So no command has an older login."""


class AgentSettings(ServiceSettings):
    """The settings of an agent."""

    SERVICE: ClassVar[str] = "agent"

    data_dir: Path = Path("/var/lib/proctor-agent")
    """Identity, journal and spool; private to this one agent."""
    host: str | None = None
    """The host's name in the enrolment; only compared, so that a copied settings file is noticed."""

    join_url: str | None = None
    """The api's address, for the first start."""
    join_token: SecretStr | None = None
    """Valid once; ignored when the agent has joined."""
    join_ca_file: Path | None = None
    nats_urls: list[str] = []
    """The bus's URLs, if they differ from what the join said."""
    nats_ca_file: Path | None = None
    allow_plaintext: bool = False
    start_timeout: float = Field(default=30.0, ge=0, le=600)

    slots: int = Field(default=16, ge=1, le=1024)
    plugins: list[str] | None = None
    """Which plugins to load; absent: all that are installed."""
    plugin_settings: dict[str, dict[str, Any]] = {}
    targets: dict[str, TargetSettings] = {}
    default_target: str | None = None

    heartbeat: float = Field(default=5.0, gt=0)
    republish: float = Field(default=30.0, gt=0)
    """How often an unconfirmed end is published again."""
    spool_limit: int = Field(default=1024 * MIB, ge=MIB)
    attempt_spool_limit: int = Field(default=256 * MIB, ge=MIB)
    journal_reserve: int = Field(default=64 * MIB, ge=MIB)
    metrics_http: str | None = None
    """``address:port`` for /healthz and /metrics; absent: none."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.default_target is not None and self.default_target not in self.targets:
            raise ValueError(f"default_target: no such target: {self.default_target}")
        return self

    def ssh_targets(self) -> dict[str, Target]:
        """The targets by name."""
        return {name: Target(name, **dict(one)) for name, one in self.targets.items()}
