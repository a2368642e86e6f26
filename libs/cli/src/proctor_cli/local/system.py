"""The local system as a whole: started in parallel, watched, and stopped in order."""

import asyncio
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from proctor_cli.init.identity import Identities, make_identities
from proctor_cli.local import nats, settings_files
from proctor_cli.local.addresses import HttpAddress, claim_http, private_ports
from proctor_cli.local.api import LocalApi, NoAnswer
from proctor_cli.local.faults import GivenUp
from proctor_cli.local.folders import DataDir
from proctor_cli.local.pointer import Pointer
from proctor_cli.local.pool import own_file
from proctor_cli.local.postgres import find_postgres, make_cluster
from proctor_cli.local.processes import ChildSpec, proctor_command
from proctor_cli.local.recovery import ChildRecord, kill_marked
from proctor_cli.local.supervisor import Care, ChildKeeper, ChildSupervisor, Say
from proctor_cli.local.target import target_in

READY_SECONDS = 120.0
JOIN_TOKEN = "PROCTOR_AGENT_JOIN_TOKEN"  # noqa: S105 - a variable's name
# Stop order.
AGENTS, API, CONTROLLER, NATS, POSTGRES = range(5)


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `proctor up`."""

    data: Path
    http: HttpAddress
    agents: int = 1
    no_auth: bool = False
    pool: Path | None = None
    """Settings of the volume pool; None: the data directory's own."""
    announce: bool = True
    """Write the default pointer file, by which client commands find the system."""


def clear_way(data: DataDir) -> None:
    """End what a killed launcher left, so that its ports are free. For use in a thread."""
    ChildRecord(data.children).end_former()
    kill_marked(data.mark)


class LocalSystem:
    """All parts. Call :meth:`bring_up`, wait for :meth:`failed`, and call :meth:`bring_down` at the end."""

    def __init__(self, options: Options, data: DataDir, say: Say) -> None:
        """Choose ports, make keys and settings. Raises CommandFault; nothing is started yet."""
        self.options = options
        self._data = data
        self._say = say
        self._started_at = datetime.now(UTC)
        self.http = claim_http(options.http)
        self.identities = self._make_identities()
        ports = private_ports(data.run / "ports.json", ("nats", "ssh"))
        self._nats_port, self._ssh_port = ports["nats"], ports["ssh"]
        self._postgres = find_postgres(data)
        self._record = ChildRecord(data.children)
        self._supervisor = ChildSupervisor(say)
        self._sshd: Any = None
        scheme = "http" if self.http.is_loopback else "https"
        self.url = f"{scheme}://{self.http.reached_at}"
        self.token = None if options.no_auth else self.identities.token()
        self._ca = None if self.http.is_loopback else self.identities.ca
        self.api = LocalApi(self.url, self.token, self._ca)
        self.pointer = Pointer(self.url, self.token, self._ca, data.root)
        self._target = target_in(data.ssh, self._ssh_port)
        self._mark = data.mark

    def _make_identities(self) -> Identities:
        return make_identities(self._data.secrets, [] if self.http.is_loopback else [self.http.host])

    async def bring_up(self) -> None:
        """Start everything; returns when it is ready. Raises CommandFault."""
        supervisor, data = self._supervisor, self._data
        nats_child = nats.nats_spec(data, self.identities, self._nats_port)
        supervisor.add(nats_child, self._care(nats_child, lambda _: nats.greets(self._nats_port)), stop_after=NATS)
        self._write_settings()
        for name, order in (("controller", CONTROLLER), ("api", API)):
            spec = self._service(name, name, data.config(name), data.log(name))
            supervisor.add(spec, self._care(spec), stop_after=order)
        hosts = [f"local-{number}" for number in range(1, self.options.agents + 1)]
        joined = {host: self._start_agent(host) for host in hosts if self._identity(host).exists()}
        await asyncio.to_thread(make_cluster, self._postgres, self.identities.passwords())
        postgres = self._postgres
        supervisor.add(
            postgres.spec(),
            self._care(postgres.spec(), postgres.is_up, before=lambda: asyncio.to_thread(postgres.clear_way)),
            stop_after=POSTGRES,
        )
        await self._start_sshd()
        await self._until("the api to answer", self._is_api_ready)
        await self._enrol_new(hosts, joined)
        await self._until("the agents to register", lambda: self._are_agents_ready(hosts))
        other = self.pointer.write(announce=self.options.announce)
        if other is not None:
            token = " and PROCTOR_TOKEN" if self.token else ""
            self._say(f"commands find the system at {other}, which runs already; for this one set PROCTOR_URL{token}")

    async def failed(self) -> None:
        """Wait until a child cannot be kept running; raises GivenUp. Never returns."""
        await self._supervisor.failed()

    async def bring_down(self) -> None:
        """Stop everything in order."""
        self.pointer.remove()
        self._postgres.helpers.end()
        await self._supervisor.stop()
        if self._sshd is not None:
            await self._sshd.close()
        self._record.clear()

    def _care(
        self,
        spec: ChildSpec,
        is_up: Callable[[int], Any] | None = None,
        *,
        before: Callable[[], Any] | None = None,
    ) -> Care:
        return Care(is_up=is_up, before=before, started=lambda child: self._record.note(spec.name, child.pid))

    def _write_settings(self) -> None:
        url = nats.url(self._nats_port)
        tls = None
        if not self.http.is_loopback:
            tls = (self.identities.certificate("api"), self.identities.key("api"))
        settings_files.write(
            self._data.config("controller"),
            settings_files.controller_settings(
                self.identities,
                database=self._postgres.url("proctor_controller"),
                nats=url,
                pool_file=self.options.pool or own_file(self._data),
                pool_folder=self._data.volumes,
            ),
        )
        settings_files.write(
            self._data.config("api"),
            settings_files.api_settings(
                self.identities,
                http=self.http.text,
                database=self._postgres.url("proctor_api"),
                nats=url,
                no_auth=self.options.no_auth,
                tls=tls,
            ),
        )

    def _service(self, name: str, service: str, config: Path, log: Path, **environment: str) -> ChildSpec:
        env = {key: value for key, value in os.environ.items() if key != JOIN_TOKEN}
        return ChildSpec(name, proctor_command((service, "--config", str(config))), log, env={**env, **environment})

    async def _start_sshd(self) -> None:
        # Imported while the children start: it takes up to a second.
        from proctor_cli.local.sshd import LoopbackSshd

        self._sshd = LoopbackSshd(self._data.ssh, self._ssh_port, self._mark)
        await self._sshd.start()

    def _start_agent(self, host: str, join_token: str | None = None) -> ChildKeeper:
        folder = self._data.agent(host)
        folder.mkdir(mode=0o700, exist_ok=True)
        config = folder / "agent.toml"
        settings_files.write(
            config,
            settings_files.agent_settings(
                host=host,
                data=folder / "data",
                join_url=self.url,
                nats=nats.url(self._nats_port),
                target=self._target,
                ca=self._ca,
            ),
        )
        environment = {JOIN_TOKEN: join_token} if join_token else {}
        spec = self._service(host, "agent", config, self._data.log(host), **environment)
        return self._supervisor.add(spec, self._care(spec), stop_after=AGENTS)

    def _identity(self, host: str) -> Path:
        """The file that an agent has when it has joined."""
        return self._data.agent(host) / "data" / "identity.json"

    async def _enrol_new(self, hosts: list[str], joined: dict[str, ChildKeeper]) -> None:
        """Enrol and start the agents that have not joined yet, or that an admin has removed since."""
        agents: dict[str, dict[str, Any]] = {}

        async def answers() -> bool:
            nonlocal agents
            try:
                agents = await asyncio.to_thread(self.api.agents)
            except NoAnswer as fault:
                if fault.status in {401, 403}:
                    token = self.identities.admin_token
                    raise GivenUp(f"the api does not take the token in {token}: {fault}") from None
                return False
            return True

        await self._until("a controller to answer", answers)
        for host in hosts:
            if host in agents and host in joined:
                continue
            if host in joined:
                await self._supervisor.remove(joined[host])
                await asyncio.to_thread(shutil.rmtree, self._identity(host).parent, ignore_errors=True)
            try:
                token = await asyncio.to_thread(self.api.enrol, host)
            except NoAnswer as fault:
                raise GivenUp(f"cannot enrol {host}: {fault}") from None
            self._start_agent(host, token)

    async def _is_api_ready(self) -> bool:
        return await asyncio.to_thread(self.api.is_ready)

    async def _are_agents_ready(self, hosts: list[str]) -> bool:
        try:
            agents = await asyncio.to_thread(self.api.agents)
        except NoAnswer:
            return False
        return all(is_ready(agents.get(host), self._started_at) for host in hosts)

    async def _until(self, what: str, holds: Callable[[], Any]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        pause = 0.03
        while not await holds():
            if time.monotonic() >= deadline:
                waiting = [k.spec.name for k in self._supervisor.keepers() if not k.up.is_set()]
                detail = f" ({', '.join(waiting)} not up)" if waiting else ""
                raise GivenUp(f"waited {READY_SECONDS:.0f} s for {what}{detail}; logs: {self._data.logs}")
            await asyncio.sleep(pause)
            pause = min(pause * 1.3, 0.2)


def is_ready(agent: dict[str, Any] | None, since: datetime) -> bool:
    """Whether an agent, as in ``GET /v1/agents``, was heard of since then and takes work.

    A drained agent counts as ready.
    """
    if agent is None or not agent.get("last_heartbeat"):
        return False
    if datetime.fromisoformat(agent["last_heartbeat"]) < since:
        return False
    if agent.get("draining"):
        return agent.get("state") == "online"
    return bool(agent.get("ready")) and bool(agent.get("plugins"))
