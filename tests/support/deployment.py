"""The compose deployment as plain processes: what compose.yaml says, with addresses and paths of this machine.

Names of compose's network become loopback addresses, `/run/secrets/NAME` becomes a folder in which each named secret
is a link to its file; everything else (settings, commands, secrets) is taken from compose.yaml as it stands.
"""

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from support.folders import remove_tree, short_dir
from support.postgres import PORT, PostgresServer
from support.processes import VENV_BIN, Child, Processes, free_port, is_listening
from support.sshd import SshTarget
from support.wait import eventually_sync

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "deploy" / "compose"
HOST = "compose-1"
READY_SECONDS = 30.0
_VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::[-?]([^}]*))?\}")


def read_compose() -> dict[str, Any]:
    """compose.yaml, its merge keys resolved and its variables not."""
    found: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
    return found


def fill(text: str, variables: Mapping[str, str]) -> str:
    """`text` with `${NAME}`, `${NAME:-default}` filled in as compose does."""
    return _VARIABLE.sub(lambda m: variables.get(m[1]) or m[2] or "", text)


class PasswordPostgres(PostgresServer):
    """A cluster that lets its superuser in as the image does by socket, and everybody else with a password only."""

    def start(self) -> "PasswordPostgres":
        fresh = not self.data.exists()
        super().start()
        if fresh:
            (self.data / "pg_hba.conf").write_text("local all postgres trust\nlocal all all scram-sha-256\n")
            self.psql("SELECT pg_reload_conf()")
        return self

    def initialise(self, roles_sql: str) -> None:
        """What the image does at its first start: the database, then the mounted SQL, as the superuser."""
        self.psql("CREATE DATABASE proctor")
        self.psql(roles_sql, "proctor")

    def address(self, role: str) -> str:
        return f"{role}@/proctor?host={quote(str(self.folder), safe='')}&port={PORT}"


@dataclass(frozen=True)
class Ports:
    """Where things listen on this machine."""

    http: int
    nats: int
    nats_monitoring: int


class Deployment:
    """One installation. `servers` and `services` may be started, ended and started again on other, empty stores."""

    def __init__(self, target: SshTarget) -> None:
        self.compose = read_compose()
        self.folder = short_dir("deploy")
        self.secrets = self.folder / "secrets"
        self.run_secrets = self.folder / "run"
        self.run_secrets.mkdir(mode=0o700)
        self.ports = Ports(free_port(), free_port(), free_port())
        self.variables = {"PROCTOR_NAME": "localhost"}
        self.agent_data = self.folder / "agent"
        self.store = self.folder / "jetstream"
        self.volumes = self.folder / "volumes"
        self.volumes.mkdir(mode=0o700)
        self.postgres: PasswordPostgres | None = None
        self._target = target
        (self.folder / "output").mkdir()
        self._processes = Processes(self.folder / "output")
        self.controllers: list[Child] = []
        self.nats: Child | None = None
        self.api: Child | None = None
        self.agent: Child | None = None

    # What compose.yaml says

    @property
    def url(self) -> str:
        return f"https://localhost:{self.ports.http}"

    @property
    def ca(self) -> Path:
        return self.secrets / "tls" / "ca.crt"

    def here(self, text: str) -> str:
        """What a value of compose.yaml is on this machine."""
        ports = self.ports
        text = fill(
            text, {**self.variables, "PROCTOR_NATS_PORT": str(ports.nats), "PROCTOR_HTTP_PORT": str(ports.http)}
        )
        text = re.sub(r"(\w+)@postgres/proctor", lambda m: self._postgres.address(m[1]), text)
        for compose, local in (
            ("//nats:4222", f"//localhost:{ports.nats}"),
            ("//api:8774", f"//localhost:{ports.http}"),
            ("0.0.0.0:8774", f"0.0.0.0:{ports.http}"),
            ("127.0.0.1:8774", f"127.0.0.1:{ports.http}"),
            ("127.0.0.1:8222", f"127.0.0.1:{ports.nats_monitoring}"),
            ("/run/secrets", str(self.run_secrets)),
            ("/var/lib/proctor-agent", str(self.agent_data)),
            ("/data/jetstream", str(self.store)),
            ("/etc/proctor/pool.ini", str(COMPOSE / "pool" / "pool.ini")),
            ("/etc/proctor/clouds.yaml", str(COMPOSE / "pool" / "clouds.yaml")),
            ("/var/lib/proctor-volumes", str(self.volumes)),
        ):
            text = text.replace(compose, local)
        return text

    def environment(self, service: str) -> dict[str, str]:
        given = self.compose["services"][service].get("environment", {})
        return {name: self.here(str(value)) for name, value in given.items()}

    def command(self, service: str) -> list[str]:
        return [self.here(word) for word in self.compose["services"][service].get("command", [])]

    @property
    def _postgres(self) -> PasswordPostgres:
        assert self.postgres is not None
        return self.postgres

    # Starting and ending

    def init(self) -> None:
        """`proctor init` as the service `init` runs it, but for the folder and the port."""
        words = [str(self.secrets) if word == "/secrets" else word for word in self.command("init")]
        words += ["--nats-listen", f"127.0.0.1:{self.ports.nats}"]
        done = subprocess.run([VENV_BIN / "proctor", *words], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        self.link_secrets()

    def link_secrets(self) -> None:
        """Each secret under its name, as a container sees it."""
        for name, secret in self.compose["secrets"].items():
            link = self.run_secrets / name
            if not link.is_symlink():
                link.symlink_to(self.secrets / Path(secret["file"]).relative_to("secrets"))

    def start_servers(self) -> None:
        """PostgreSQL and NATS, on new stores where there are none."""
        self.postgres = PasswordPostgres(durable=False)
        self.postgres.start()
        self.postgres.initialise((self.secrets / "postgres" / "roles.sql").read_text())
        words = [str(self.ports.nats_monitoring) if word == "8222" else word for word in self.command("nats")]
        self.nats = self._processes.start([VENV_BIN / "nats-server", *words], name="nats-server", clean_env=True)
        eventually_sync(lambda: is_listening(self.ports.nats), 15, "nats-server to listen")

    def stop_servers(self) -> None:
        """End both and forget what they stored."""
        assert self.nats is not None
        self.nats.terminate()
        self._postgres.close()
        self.postgres = None
        remove_tree(self.store)

    def start_services(self) -> None:
        """As many controllers as compose.yaml says, and the api."""
        for _ in range(self.compose["services"]["controller"]["deploy"]["replicas"]):
            self.controllers.append(self.start_service("controller"))
        self.api = self.start_service("api")
        for controller in self.controllers:
            controller.wait_for_line("controller_ready", READY_SECONDS)
        self.api.wait_for_line("listening", READY_SECONDS)

    def stop_services(self) -> None:
        """SIGTERM to the api and the controllers; each ends with exit code 0."""
        assert self.api is not None
        ended = [self.api, *(one for one in self.controllers if one.alive)]
        for one in ended:
            one.signal(15)
        assert [one.wait() for one in ended] == [0] * len(ended)
        self.controllers.clear()

    def start_agent(self) -> None:
        """The agent of the profile, with a target that is really there."""
        target = self._target
        config = self.folder / "agent.toml"
        config.write_text(
            f'default_target = "dut"\n[targets.dut]\nhost = "{target.host}"\nport = {target.port}\n'
            f'user = "{target.user}"\nkey_file = "{target.key}"\nknown_hosts_file = "{target.known_hosts}"\n'
        )
        words = [word.replace("/etc/proctor/agent.toml", str(config)) for word in self.command("agent")]
        self.agent = self.start_service("agent", *words)
        self.agent.wait_for_line("agent_ready", READY_SECONDS)

    def start_service(self, name: str, *words: str) -> Child:
        """One process of a service, as compose.yaml has it."""
        environment = self.environment(name)
        variable = f"PROCTOR_{name.upper()}_METRICS_HTTP"
        if variable in environment:  # replicas share this machine's addresses, containers do not
            environment[variable] = f"127.0.0.1:{free_port()}"
        return self._processes.start([VENV_BIN / f"proctor-{name}", *words], env=environment, clean_env=True)

    # Using it

    def cli(self, *words: str, ca: Path | None = None, **variables: str) -> "subprocess.CompletedProcess[str]":
        """A command of an admin who is told of the CA as docs/operations.md says."""
        environment = {
            "PATH": os.environ["PATH"],
            "XDG_DATA_HOME": str(self.folder / "nothing"),
            "PROCTOR_URL": self.url,
            "PROCTOR_TOKEN": self.token,
            "SSL_CERT_FILE": str(ca or self.ca),
        }
        return subprocess.run(
            [VENV_BIN / "proctor", *words],
            env={**environment, **variables},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def token(self) -> str:
        return (self.secrets / "admin.token").read_text().strip()

    def told(self) -> str:
        """All that the processes wrote, for a failure's message."""
        return self._processes.outputs()[-8000:]

    def close(self) -> None:
        self._processes.end_all()
        if self.postgres is not None:
            self.postgres.close()
        remove_tree(self.folder)


@contextmanager
def deployed(target: SshTarget) -> Iterator[Deployment]:
    """The whole deployment, its agent not yet joined; gone at the end."""
    made = Deployment(target)
    try:
        made.init()
        made.start_servers()
        made.start_services()
        yield made
    finally:
        made.close()
