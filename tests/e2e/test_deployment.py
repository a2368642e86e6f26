"""The compose deployment as processes: TLS everywhere, keys and settings as compose.yaml and `proctor init` say."""

import http.client
import json
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import nats
import pytest

from proctor_cli.client import Client
from proctor_cli.endpoint import Endpoint
from proctor_cli.init.identity import make_identities
from proctor_cli.tail import follow
from proctor_common import subjects
from support.deployment import HOST, Deployment, deployed
from support.loopback import LoopbackServer
from support.postgres import PORT, binaries
from support.processes import VENV_BIN, Processes
from support.wait import eventually, eventually_sync

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def lab(_loopback: LoopbackServer) -> Iterator[Deployment]:
    """An installation whose agent has joined with a token that was good once."""
    with deployed(_loopback.target) as made:
        assert made.cli("groups", "create", "lab-a").returncode == 0
        done = made.cli("agents", "enroll", HOST, "--group", "lab-a", "-o", "json")
        assert done.returncode == 0, done.stderr + made.told()
        token = made.secrets / "join.token"
        token.write_text(json.loads(done.stdout)["token"] + "\n")
        token.chmod(0o600)
        made.start_agent()
        yield made


def _case(lab: Deployment, words: str) -> str:
    """A test case that says `words` and must pass; what its log showed."""
    done = lab.cli("case", HOST, "linux_system.run_shell", "command=echo", f"args={words}")
    assert done.returncode == 0, done.stdout + done.stderr + lab.told()
    return done.stdout


def test_a_test_case_passes_and_its_log_is_followed_over_tls(lab: Deployment) -> None:
    eventually_sync(lambda: lab.cli("agents", "show", HOST).returncode == 0, 15, "the agent to be known")
    assert "over tls\n" in _case(lab, "over tls")


def test_a_join_token_is_good_once(lab: Deployment, processes: Processes, tmp_path: Path) -> None:
    again = processes.start(
        [VENV_BIN / "proctor-agent", "join", lab.url, "--ca-file", lab.ca],
        env={"PROCTOR_AGENT_DATA_DIR": str(tmp_path / "another")},
        clean_env=True,
        stdin=(lab.secrets / "join.token").read_bytes(),
    )
    assert again.wait() == 1
    assert "cannot join" in again.stderr


def test_an_agent_that_has_joined_needs_no_token_any_more(lab: Deployment) -> None:
    assert lab.agent is not None
    assert lab.agent.terminate() == 0
    (lab.secrets / "join.token").write_text("")
    lab.start_agent()
    with Client(Endpoint(lab.url, lab.token, str(lab.ca))) as client:
        eventually_sync(lambda: _is_ready(client), 30, "the agent to be back")
    assert "without a token\n" in _case(lab, "without a token")


def test_who_does_not_know_the_ca_sends_nothing(lab: Deployment, tmp_path: Path) -> None:
    stranger = make_identities(tmp_path / "another").ca
    refused = lab.cli("agents", ca=stranger)
    assert refused.returncode != 0
    assert "certificate" in refused.stderr.lower()


def test_nobody_is_served_in_the_clear(lab: Deployment) -> None:
    plain = http.client.HTTPConnection("127.0.0.1", lab.ports.http, timeout=10)
    plain.request("GET", "/healthz")
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        plain.getresponse()
    with socket.create_connection(("127.0.0.1", lab.ports.nats), timeout=10) as bus:
        said = bus.recv(4096)
        assert json.loads(said.removeprefix(b"INFO "))["tls_required"] is True
        bus.sendall(b'CONNECT {"verbose":false}\r\nPING\r\n')
        rest = b""
        with suppress(ConnectionError):
            while piece := bus.recv(4096):
                rest += piece
        assert b"PONG" not in rest


def test_health_checks_of_the_compose_file_pass(lab: Deployment) -> None:
    """NATS by its monitoring port, as wget asks (HEAD); the api by the very program of its health check."""
    monitoring = http.client.HTTPConnection("127.0.0.1", lab.ports.nats_monitoring, timeout=10)
    monitoring.request("HEAD", "/healthz")
    assert monitoring.getresponse().status == 200
    program = lab.here(lab.compose["services"]["api"]["healthcheck"]["test"][3])
    done = subprocess.run([VENV_BIN / "python", "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


async def test_an_agents_key_is_good_for_its_own_subjects_only(lab: Deployment) -> None:
    known = json.loads((lab.agent_data / "identity.json").read_text())
    assert known["nats_urls"][0].startswith("tls://")
    own, other = known["agent"], "019aa000-0000-7000-8000-000000000000"
    complaints: list[str] = []

    async def complain(fault: Exception) -> None:
        complaints.append(str(fault).lower())

    client = await nats.connect(
        known["nats_urls"][0],
        nkeys_seed_str=(lab.agent_data / "agent.nk").read_text().strip(),
        inbox_prefix=subjects.inbox_prefix(own),
        tls=ssl.create_default_context(cafile=str(lab.ca)),
        error_cb=complain,
        allow_reconnect=False,
    )
    try:
        await client.publish(subjects.log(own, "r", "s", 1), b"")
        await client.rtt()
        await client.rtt()
        assert complaints == []
        for subject in (subjects.log(other, "r", "s", 1), subjects.event(other, "s", 1), subjects.order(own, "start")):
            complaints.clear()
            await client.publish(subject, b"forged")
            await eventually(lambda: complaints, 5, f"the refusal of {subject}")
            assert "permissions violation for publish" in complaints[0]
    finally:
        await client.close()


def test_a_services_role_reads_its_own_schemas_only(lab: Deployment) -> None:
    assert _psql(lab, "proctor_controller", "SELECT count(*) FROM control.runs").returncode == 0
    assert _psql(lab, "proctor_api", "SELECT count(*) FROM access.tokens").returncode == 0
    for role, table in (("proctor_controller", "access.tokens"), ("proctor_api", "control.runs")):
        refused = _psql(lab, role, f"SELECT count(*) FROM {table}")
        assert refused.returncode != 0
        assert "permission denied for schema" in refused.stderr
    assert "CREATE" not in _psql(lab, "proctor_api", "CREATE TABLE public.mine (x int)").stdout
    assert "permission denied" in _psql(lab, "proctor_api", "CREATE TABLE public.mine (x int)").stderr
    assert "password authentication failed" in _psql(lab, "proctor_api", "SELECT 1", password="wrong").stderr


def _psql(lab: Deployment, role: str, sql: str, password: str | None = None) -> "subprocess.CompletedProcess[str]":
    server = lab.postgres
    assert server is not None
    secret = password or (lab.secrets / "postgres" / f"{role}.password").read_text().strip()
    words: list[str | Path] = [
        binaries() / "psql",
        "-X",
        "-w",
        "-h",
        server.folder,
        "-p",
        str(PORT),
        "-U",
        role,
        "-d",
        "proctor",
        "-c",
        sql,
    ]
    return subprocess.run(words, env={"PGPASSWORD": secret}, capture_output=True, text=True, timeout=30, check=False)


def test_the_death_of_one_controller_changes_nothing(lab: Deployment, tmp_path: Path) -> None:
    go, token = tmp_path / "go", lab.token
    with Client(Endpoint(lab.url, token, str(lab.ca))) as client:
        body = {
            "plugin": "linux_system",
            "method": "run_shell",
            "host": HOST,
            "parameters": {
                "shell": True,
                "command": 'echo up; until [ -e "$1" ]; do sleep 0.05; done; echo on',
                "args": [str(go)],
            },
        }
        run = client.post("/v1/testcases", body, starts=True)["id"]
        text = ""
        for frame in follow(client.endpoint, run):
            text += frame["text"] if frame["type"] == "chunk" else ""
            if text == "up\n" and not go.exists():
                lab.controllers[0].kill()
                go.write_text("")
            if frame["type"] == "end":
                assert (frame["result"], text) == ("passed", "up\non\n")
    assert "still here\n" in _case(lab, "still here")


def test_what_was_saved_is_restored_as_the_operations_page_says(lab: Deployment) -> None:
    """The folder of init and a dump of PostgreSQL; NATS starts empty."""
    _case(lab, "before the fire")
    with Client(Endpoint(lab.url, lab.token, str(lab.ca))) as client:
        former = client.get("/v1/runs")["items"]
    dump = _as_superuser(lab, "pg_dump", "-Fc", "proctor")
    lab.stop_services()
    lab.stop_servers()

    lab.start_servers()
    _as_superuser(lab, "pg_restore", "--clean", "--if-exists", "-d", "proctor", given=dump)
    lab.start_services()
    with Client(Endpoint(lab.url, lab.token, str(lab.ca))) as client:
        assert client.get("/v1/runs")["items"] == former
        frames = list(follow(client.endpoint, former[0]["id"]))
        told = [frame for frame in frames if frame["type"] in {"chunk", "gap", "end"}]
        assert [(frame["type"], frame.get("reason")) for frame in told[:-1]] == [("gap", "expired")], told
        assert (told[-1]["type"], told[-1]["result"]) == ("end", "passed")
        eventually_sync(lambda: _is_ready(client), 60, "the agent to be back")
    assert "after the fire\n" in _case(lab, "after the fire")
    for role, table in (("proctor_controller", "access.tokens"), ("proctor_api", "control.runs")):
        assert "permission denied" in _psql(lab, role, f"SELECT count(*) FROM {table}").stderr


def _is_ready(client: Client) -> bool:
    found: dict[str, Any] = client.get(f"/v1/agents/{HOST}")
    return bool(found["ready"])


def _as_superuser(lab: Deployment, program: str, *words: str, given: bytes = b"") -> bytes:
    """A program of PostgreSQL as it runs in the server's container: by its socket, as the superuser."""
    assert lab.postgres is not None
    where = {"PGHOST": str(lab.postgres.folder), "PGPORT": str(PORT), "PGUSER": "postgres"}
    done = subprocess.run(
        [binaries() / program, *words], env=where, input=given, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_services_older_than_their_schemas_refuse_to_start_in_one_line(lab: Deployment) -> None:
    assert lab.postgres is not None
    lab.stop_services()
    for schema in ("control", "access"):
        lab.postgres.psql(f"UPDATE {schema}.alembic_version SET version_num = '9999_later'", "proctor")
    started = [lab.start_service("controller"), lab.start_service("api")]
    for one in started:
        assert one.wait(30) == 1
        (line,) = one.stderr.splitlines()
        assert "9999_later" in line
        assert "older than its database" in line
