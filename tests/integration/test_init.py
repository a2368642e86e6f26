"""`proctor init`: files made once and kept private, and a configuration that a real nats-server holds people to."""

import asyncio
import base64
import json
import os
import ssl
import stat
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import nkeys
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from proctor_cli.init import keys
from proctor_cli.init.identity import Identities, make_identities
from proctor_cli.init.nats_conf import NatsTls, nats_server_conf
from proctor_common import subjects
from support.processes import VENV_BIN, Processes, free_port, is_listening
from support.wait import eventually, eventually_sync


def _init(folder: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [VENV_BIN / "proctor", "init", folder, *options], capture_output=True, text=True, timeout=60, check=False
    )


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_init_makes_private_files_once(tmp_path: Path) -> None:
    folder = tmp_path / "installation"
    assert _init(folder, "--name", "proctor.example").returncode == 0
    first = _contents(folder)
    assert {"admin.token", "seal.key", "nats/account.nk", "nats/nats-server.conf", "tls/ca.crt"} <= set(first)
    for path in [folder, *folder.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path
    assert _init(folder, "--name", "another.example").returncode == 0
    assert _contents(folder) == first


def test_init_makes_again_only_what_is_missing(tmp_path: Path) -> None:
    identities = make_identities(tmp_path / "i")
    before = _contents(tmp_path / "i")
    identities.certificate("api").unlink()
    identities.password("proctor_api").unlink()
    make_identities(tmp_path / "i")
    after = _contents(tmp_path / "i")
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"tls/api.crt", "postgres/proctor_api.password"}


def test_init_closes_a_folder_that_was_open(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    assert _init(folder).returncode == 0
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user's folder, which only root can make")
def test_init_refuses_another_users_folder(tmp_path: Path) -> None:
    folder = tmp_path / "foreign"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    done = _init(folder)
    assert done.returncode == 1
    assert "belongs to another user" in done.stderr
    assert not any(folder.iterdir())


@pytest.mark.parametrize("name", ["a b", "-x", "a..b", "*", "x" * 300, "a/b"])
def test_init_refuses_a_name_that_is_none(tmp_path: Path, name: str) -> None:
    done = _init(tmp_path / "i", f"--name={name}")
    assert done.returncode == 2
    assert not (tmp_path / "i").exists()


class Server:
    """A nats-server with the configuration of `proctor init`."""

    def __init__(self, processes: Processes, folder: Path, *, tls: bool = False) -> None:
        self.identities: Identities = make_identities(folder / "i")
        self.port = free_port()
        conf = folder / "nats.conf"
        conf.write_text(
            nats_server_conf(
                self.identities.nats(),
                listen=f"127.0.0.1:{self.port}",
                store=folder / "js $store",
                max_store="1GB",
                tls=NatsTls(self.identities.certificate("nats"), self.identities.key("nats")) if tls else None,
            )
        )
        self.child = processes.start([VENV_BIN / "nats-server", "-c", conf], name="nats-server")
        eventually_sync(lambda: not self.child.alive or is_listening(self.port), 15, "nats-server to listen")
        assert self.child.alive, self.child.output

    @asynccontextmanager
    async def connect(self, user: str, **options: object) -> AsyncIterator[tuple[Client, list[str]]]:
        """As a static user, or with the seed that is given; what the server complains of is in the list."""
        seed = self.identities.nats_seed(user).read_text().strip() if len(user) < 20 else user
        complaints: list[str] = []

        async def on_error(fault: Exception) -> None:
            complaints.append(str(fault).lower())

        client = await nats.connect(
            f"nats://127.0.0.1:{self.port}",
            nkeys_seed_str=seed,
            error_cb=on_error,
            allow_reconnect=False,
            connect_timeout=8,
            inbox_prefix=subjects.inbox_prefix(user) if len(user) < 20 else "_INBOX",
            **options,
        )
        try:
            yield client, complaints
        finally:
            await client.close()


@pytest.fixture
def nats_of_init(processes: Processes, tmp_path: Path) -> Server:
    return Server(processes, tmp_path)


async def _barrier(client: Client) -> None:
    await client.rtt()
    await client.rtt()


async def test_api_asks_controllers_and_gets_wakes(nats_of_init: Server) -> None:
    async with nats_of_init.connect("controller") as (controller, _), nats_of_init.connect("api") as (api, complaints):

        async def answer(message: Msg) -> None:
            await message.respond(b"yes")

        await controller.subscribe(subjects.ALL_CALLS, queue=subjects.CONTROLLERS, cb=answer)
        woken = await api.subscribe(subjects.ALL_WAKES)
        live = await api.subscribe(subjects.LIVE_SUBJECTS)
        await _barrier(controller)
        await _barrier(api)
        assert (await api.request(subjects.call("run.get"), b"", timeout=5)).data == b"yes"
        await controller.publish(subjects.wake("r1"), b"w")
        await controller.publish("proctor.v1.live.a.r1.s1.1", b"")
        assert (await woken.next_msg(5)).data == b"w"
        await live.next_msg(5)
        assert complaints == []


async def test_api_reads_the_log_stream_by_direct_get_and_nothing_else_of_jetstream(nats_of_init: Server) -> None:
    async with nats_of_init.connect("controller") as (controller, _), nats_of_init.connect("api") as (api, complaints):
        stream = controller.jetstream()
        await stream.add_stream(name=subjects.LOG_STREAM, subjects=[subjects.LOG_SUBJECTS], allow_direct=True)
        await stream.publish(subjects.log("a", "r", "s", 1), b"chunk")
        found = await api.request(subjects.DIRECT_GET_LOG, b'{"seq": 1, "batch": 1}', timeout=5)
        assert found.data == b"chunk"
        for subject in ("$JS.API.STREAM.INFO.LOG", "$JS.API.STREAM.DELETE.LOG", "$JS.API.DIRECT.GET.EVENT"):
            complaints.clear()
            await api.publish(subject, b"", reply=f"{subjects.inbox_prefix('api')}.x")
            await _barrier(api)
            assert any("permissions violation for publish" in c for c in complaints), subject
        assert (await stream.stream_info(subjects.LOG_STREAM)).state.messages == 1


@pytest.mark.parametrize(
    "subject",
    [
        subjects.order("agent-1", "start"),
        subjects.event("agent-1", "s", 1),
        subjects.log("agent-1", "r", "s", 1),
        subjects.heartbeat("agent-1"),
        subjects.wake("r1"),
        subjects.AUTH_CALLOUT,
        "anything",
    ],
)
async def test_api_publishes_nothing_else(nats_of_init: Server, subject: str) -> None:
    async with nats_of_init.connect("controller") as (controller, _), nats_of_init.connect("api") as (api, complaints):
        heard = await controller.subscribe(">")
        await _barrier(controller)
        await api.publish(subject, b"forged")
        await _barrier(api)
        assert any("permissions violation for publish" in c for c in complaints)
        await controller.publish("end", b"")
        assert (await heard.next_msg(5)).subject == "end"


@pytest.mark.parametrize("subject", [">", "proctor.v1.>", "_INBOX.>", "_INBOX_controller.>", subjects.LOG_SUBJECTS])
async def test_api_hears_nothing_else(nats_of_init: Server, subject: str) -> None:
    async with nats_of_init.connect("api") as (api, complaints):
        await api.subscribe(subject)
        await _barrier(api)
        assert any("permissions violation for subscription" in c for c in complaints)


async def test_strangers_are_asked_of_the_controllers_and_denied(nats_of_init: Server) -> None:
    async with nats_of_init.connect("controller") as (controller, _):
        # Controllers that do not answer let nobody in.
        asked = await controller.subscribe(subjects.AUTH_CALLOUT, queue=subjects.CONTROLLERS)
        await _barrier(controller)
        told = await asyncio.gather(
            _say_hello(nats_of_init.port, keys.new_user_seed()), _say_hello(nats_of_init.port, None)
        )
        assert [line for line in told if "Authorization Violation" not in line] == []
        assert asked.pending_msgs == 2


async def _say_hello(port: int, seed: str | None) -> str:
    """Connect without the client library; all that the server says until it hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    info = json.loads((await reader.readline()).removeprefix(b"INFO "))
    hello: dict[str, str] = {}
    if seed is not None:
        signature = nkeys.from_seed(bytearray(seed.encode())).sign(info["nonce"].encode())
        hello = {"nkey": keys.public_key(seed), "sig": base64.urlsafe_b64encode(signature).rstrip(b"=").decode()}
    writer.write(b"CONNECT %s\r\nPING\r\n" % json.dumps(hello).encode())
    async with asyncio.timeout(10):
        said = await reader.read(-1)
    writer.close()
    return said.decode()


async def test_the_system_user_may_kick(nats_of_init: Server) -> None:
    async with nats_of_init.connect("api") as (api, _), nats_of_init.connect("system") as (system, _):
        assert api._server_info["server_id"]
        kick = subjects.kick(api._server_info["server_id"])
        await system.request(kick, f'{{"cid": {api.client_id}}}'.encode(), timeout=5)
        await eventually(lambda: not api.is_connected, 5, "the api to be disconnected")


async def test_tls_with_the_private_ca(processes: Processes, tmp_path: Path) -> None:
    server = Server(processes, tmp_path, tls=True)
    trusting = ssl.create_default_context(cafile=str(server.identities.ca))
    async with server.connect("controller", tls=trusting, tls_hostname="localhost") as (client, _):
        await _barrier(client)
    with pytest.raises(ssl.SSLCertVerificationError):
        async with server.connect("controller", tls=ssl.create_default_context(), tls_hostname="localhost"):
            pass


def test_the_certificates_are_for_the_names(tmp_path: Path) -> None:
    from proctor_cli.init.certificates import names_in

    identities = make_identities(tmp_path / "i", ["proctor.example", "10.1.2.3"])
    found = names_in(identities.certificate("api").read_bytes())
    assert {"proctor.example", "10.1.2.3", "localhost", "127.0.0.1", "nats", "api"} <= found
