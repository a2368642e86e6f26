"""`proctor up` as its user sees it: one line when it is ready, restarts, refusals, an end that leaves nothing."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from support.folders import remove_tree, short_dir
from support.processes import VENV_BIN, Child, Processes, is_alive
from support.up import START_SECONDS, Up, running_in
from support.wait import eventually_sync

POOL = """
[volumes_backup]
backup_nums_igw = 2
backup_nums_cast = 1
volume_backup_types = igw,cast
"""


@pytest.fixture
def up(processes: Processes) -> Iterator[Up]:
    """With a data directory that is not there yet."""
    folder = short_dir("up")
    yield Up(processes, folder / "data")
    _ended_in(processes, folder)
    remove_tree(folder)


@pytest.fixture(scope="module")
def used() -> Iterator[Path]:
    folder = short_dir("up")
    yield folder
    remove_tree(folder)


@pytest.fixture
def up_again(processes: Processes, used: Path) -> Iterator[Up]:
    """With the data directory of the tests before: what a first start makes need not be made for each of them."""
    yield Up(processes, used / "data")
    _ended_in(processes, used)


def _ended_in(processes: Processes, folder: Path) -> None:
    processes.end_all()
    eventually_sync(lambda: not running_in(folder), 10, f"the end of {running_in(folder)}")


def _ends(child: Child, within: float) -> int:
    started = time.monotonic()
    code = child.wait(within + 5)
    assert time.monotonic() - started <= within, child.output
    return code


def test_ready_then_refusals_then_the_end(up: Up, processes: Processes) -> None:
    (up.data.parent / "pool.ini").write_text(POOL)
    child = up.start("--agents", "2", "--pool", str(up.data.parent / "pool.ini"))
    url, token = up.ready()
    use_the_pool(up, url, token)
    assert token == (up.data / "secrets" / "admin.token").read_text().strip()

    agents = up.ask("agents")
    assert isinstance(agents, list)
    assert {a["host"]: bool(a["plugins"]) for a in agents} == {"local-1": True, "local-2": True}
    for word in ("api", "controller", "agent"):
        assert any(f"proctor {word} --config {up.data}" in line for line in running_in(up.data).values())

    again = Up(processes, up.data)
    assert again.start().wait(20) == 1
    assert again.child is not None
    assert f"in use by another `proctor up` (pid {child.pid})" in again.child.stderr
    assert again.child.stdout == ""

    taken = Up(processes, up.data.parent / "other")
    assert taken.start(http=url.removeprefix("http://")).wait(20) == 1
    assert taken.child is not None
    assert taken.child.stderr.count("\n") == 1
    assert "is taken by another program" in taken.child.stderr
    taken.assert_nothing_is_left()

    for path in (up.data / name for name in ("secrets", "ssh", "run", "logs", "nats", "agents", "volumes")):
        assert path.stat().st_mode & 0o777 == 0o700, path
    assert not [line for line in running_in(up.data).values() if token in line]

    child.signal(signal.SIGINT)
    assert _ends(child, 5) == 0
    up.assert_nothing_is_left()
    assert not (up.data / "client.json").exists()


def use_the_pool(up: Up, url: str, token: str) -> None:
    """What a user and his scripts do with the volume pool, from its first spare to its last."""
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=url, headers=headers, timeout=30) as http:

        def pools() -> dict[str, dict[str, Any]]:
            return {pool["type"]: pool for pool in http.get("/v1/pools").json()["items"]}

        def ready(**targets: int) -> bool:
            return {type: pool["ready"] for type, pool in pools().items()} == targets

        eventually_sync(lambda: ready(igw=2, cast=1), 20, "full pools")
        key = {"Idempotency-Key": "once"}
        answer = http.post("/v1/vnfps", json={"name": "vnf-1", "type": "igw"}, headers=key)
        assert answer.status_code == 202
        vnfp = answer.json()
        assert answer.headers["location"] == f"/v1/vnfps/{vnfp['id']}"
        assert (vnfp["state"], vnfp["volume"]["name"], vnfp["volume"]["from_pool"]) == ("active", "vnf-1", True)
        assert http.post("/v1/vnfps", json={"name": "vnf-1", "type": "igw"}, headers=key).json()["id"] == vnfp["id"]
        made = up.ask("vnfps", "create", "vnf-2", "cast", "--size-gb", "7")
        assert isinstance(made, dict)
        assert (made["state"], made["volume"]["size_gb"]) == ("creating", 7), "no spare is so large"
        eventually_sync(lambda: http.get(f"/v1/vnfps/{made['id']}").json()["state"] == "active", 20, "the volume")
        eventually_sync(lambda: ready(igw=2, cast=1), 20, "full pools again")
        shown = {pool["type"]: pool for pool in cast("list[dict[str, Any]]", up.ask("pools"))}
        assert (shown["igw"]["claims"], shown["igw"]["hit_rate"], shown["cast"]["hit_rate"]) == (1, 1.0, 0.0)

        for body, status in (({"target": -1}, 422), ({"target": 1.5}, 422), ({"target": True}, 422), ({}, 422)):
            assert http.put("/v1/pools/igw", json=body).status_code == status, body
        unknown = http.put("/v1/pools/nope", json={"target": 1})
        assert (unknown.status_code, unknown.json()["name"]) == (404, "nope")
        unknown = http.post("/v1/vnfps", json={"name": "x", "type": "nope"})
        assert (unknown.status_code, unknown.json()["name"]) == (404, "nope")
        for wrong in (
            {"name": "", "type": "igw"},
            {"name": "a\x07", "type": "igw"},
            {"type": "igw"},
            {"name": "a", "type": 1},
        ):
            assert http.post("/v1/vnfps", json=wrong).status_code == 422, wrong
        assert http.get("/v1/volumes", params={"state": "gone"}).status_code == 422
        assert http.put("/v1/pools/igw", json={"target": 1}).json()["target"] == 1
        eventually_sync(lambda: ready(igw=1, cast=1), 20, "the new target")
        job = http.post("/v1/pools/sync")
        assert (job.status_code, job.json()["job"]) == (202, "sync")

        assert http.delete(f"/v1/vnfps/{vnfp['id']}").status_code == 202
        eventually_sync(lambda: http.get(f"/v1/vnfps/{vnfp['id']}").json()["state"] == "deleted", 20, "the deletion")
        assert vnfp["volume"]["id"] not in {row["id"] for row in http.get("/v1/volumes").json()["items"]}
        gone = http.get("/v1/volumes", params={"state": "deleted"}).json()["items"]
        assert vnfp["volume"]["id"] in {row["id"] for row in gone}


def test_a_pool_file_with_faults_starts_nothing_and_names_them(processes: Processes, tmp_path: Path) -> None:
    (tmp_path / "pool.ini").write_text("[volumes]\nconcurrency = many\nfail_rate = 7\n")
    child = processes.proctor("up", "--data", tmp_path / "data", "--pool", tmp_path / "pool.ini")
    assert child.wait(20) == 2
    assert "concurrency: must be a whole number" in child.stderr
    assert "fail_rate: must be a number" in child.stderr
    assert not (tmp_path / "data").exists()


def test_each_child_is_started_again(up_again: Up) -> None:
    child = up_again.start()
    up_again.ready()
    for name in ("nats-server", "postgres", "controller", "api", "local-1"):
        former = up_again.pid(name)
        os.kill(former, signal.SIGKILL)
        line = f"proctor up: {name} died (SIGKILL) and is started again"
        eventually_sync(lambda line=line: line in child.stderr, 40, line)  # type: ignore[misc]

    def works_again() -> bool:
        assert child.alive, up_again.told()
        found = subprocess.run(
            [VENV_BIN / "proctor", "agents", "-o", "json"],
            env={**os.environ, **up_again.env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return found.returncode == 0 and all(a["ready"] for a in json.loads(found.stdout))

    eventually_sync(works_again, 60, "the system to be whole again", retry_on=())
    child.signal(signal.SIGTERM)
    assert _ends(child, 5) == 0
    up_again.assert_nothing_is_left()


def test_after_sigkill_of_the_launcher_the_next_up_goes_on_and_three_deaths_end_it(up_again: Up) -> None:
    first = up_again.start()
    url, token = up_again.ready()
    children = [up_again.pid(name) for name in ("nats-server", "postgres", "controller", "api", "local-1")]
    first.kill()
    # At once, at the same address: what is still ending is waited for.
    second = up_again.start(http=url.removeprefix("http://"))
    assert up_again.ready() == (url, token)
    assert [pid for pid in children if is_alive(pid)] == []
    former = 0
    for _ in range(3):
        eventually_sync(lambda former=former: up_again.pid("controller") != former, 30, "a new controller")  # type: ignore[misc]
        former = up_again.pid("controller")
        os.kill(former, signal.SIGKILL)
    assert second.wait(30) == 1
    assert "controller died three times within a minute" in second.stderr
    up_again.assert_nothing_is_left()


def test_ctrl_c_while_it_starts(up: Up) -> None:
    child = up.start()
    eventually_sync((up.data / "run" / "children.json").exists, 30, "the first child")
    child.signal(signal.SIGINT)
    assert _ends(child, 5) == 0
    assert child.stdout == ""
    up.assert_nothing_is_left()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--http", "nowhere"], "not ADDR:PORT"),
        (["--http", "127.0.0.1:99999"], "not ADDR:PORT"),
        (["--http", "0.0.0.0:0", "--no-auth"], "only with a loopback address"),
        (["--agents", "-1"], "agents"),
        (["--pool", "/no/such/file.ini"], "no such file"),
        (["--pool", "/dev/null"], "--pool"),
        (["--no-such-option"], "no-such-option"),
    ],
)
def test_usage(processes: Processes, tmp_path: Path, options: list[str], said: str) -> None:
    child = processes.proctor("up", "--data", tmp_path / "data", *options)
    assert child.wait(20) == 2
    assert said in child.stderr
    assert child.stdout == ""
    assert not (tmp_path / "data").exists()


def test_a_data_directory_that_is_none(processes: Processes, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    child = processes.proctor("up", "--data", tmp_path / "file", "--http", "127.0.0.1:0")
    assert child.wait(20) == 1
    assert child.stderr.count("\n") == 1
    assert "not a folder" in child.stderr


def test_a_taken_port_starts_nothing(processes: Processes, tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        address = f"127.0.0.1:{holder.getsockname()[1]}"
        child = processes.proctor("up", "--data", tmp_path / "data", "--http", address)
        assert child.wait(20) == 1
    assert child.stderr == f"proctor: {address} is taken by another program; give another one: --http 127.0.0.1:PORT\n"
    assert not list((tmp_path / "data" / "run").iterdir())


def test_beyond_loopback_it_speaks_tls_and_its_own_commands_trust_it(up_again: Up) -> None:
    child = up_again.start(http="0.0.0.0:0")
    eventually_sync(lambda: "ready " in child.stdout or not child.alive, START_SECONDS, "the line ready", retry_on=())
    assert child.stdout.startswith("ready https://127.0.0.1:"), up_again.told()
    assert up_again.ask("agents")
    child.signal(signal.SIGTERM)
    assert _ends(child, 5) == 0
    up_again.assert_nothing_is_left()
