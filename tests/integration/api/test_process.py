"""The api as a process: killed under its viewers, stopped, started where something is wrong."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from proctor_common.ids import new_id
from proctor_common.messages.views import RecordView
from support.api_world import FIRST_TOKEN, Attempt, FakeRun, World
from support.nats import NatsAccount, NatsServer
from support.postgres import Database
from support.processes import VENV_BIN, Child, Processes, free_port
from support.wait import eventually

VIEWERS = 12
HEADERS = {"Authorization": f"Bearer {FIRST_TOKEN}"}


class Service:
    """An api process on a port of its own."""

    def __init__(self, processes: Processes, folder: Path, **settings: Any) -> None:
        self.port = free_port()
        self.processes = processes
        self.config = folder / "api.toml"
        (folder / "token").write_text(FIRST_TOKEN + "\n")
        values = {"http": f"127.0.0.1:{self.port}", "first_token_file": str(folder / "token"), **settings}
        self.config.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items()))

    def start(self, **options: Any) -> Child:
        argv: list[str | Path] = [VENV_BIN / "python", "-m", "proctor_api", "--config", self.config]
        return self.processes.start(argv, name="api", **options)

    async def ready(self, child: Child) -> None:
        async def answers() -> bool:
            assert child.alive, child.output
            async with httpx.AsyncClient(trust_env=False) as http:
                return (await http.get(f"http://127.0.0.1:{self.port}/readyz", timeout=5)).status_code == 200

        await eventually(answers, 20, "the api to be ready", retry_on=(httpx.HTTPError,))


@pytest.fixture
def service(processes: Processes, tmp_path: Path, nats: NatsAccount, migrated: Database) -> Service:
    return Service(processes, tmp_path, database_url=migrated.dsn, nats_urls=[nats.url], log_tick=0.2)


async def watch(url: str, seen: list[str]) -> dict[str, Any]:
    """A viewer who comes back with his last cursor whenever the connection is lost; the end's frame."""
    cursor = ""
    while True:
        try:
            async with connect(f"{url}?after={cursor}", additional_headers=HEADERS, compression=None) as socket:
                async for text in socket:
                    frame: dict[str, Any] = json.loads(text)
                    cursor = frame.get("cursor", cursor)
                    if frame["type"] == "chunk":
                        seen.append(frame["text"])
                    elif frame["type"] == "gap":
                        seen.append(f"gap {frame}")
                    elif frame["type"] == "end":
                        return frame
        except (OSError, ConnectionClosed, InvalidHandshake):
            await asyncio.sleep(0.05)


async def test_viewers_of_a_killed_api_miss_nothing_and_see_nothing_twice(service: Service, world: World) -> None:
    run = world.add_run()
    attempts = [world.begin(run, name) for name in ("build", "test")]
    child = service.start()
    await service.ready(child)
    url = f"ws://127.0.0.1:{service.port}/v1/runs/{run.id}/logs/tail"
    seen: list[list[str]] = [[] for _ in range(VIEWERS)]
    viewers = [asyncio.create_task(watch(url, lines)) for lines in seen]
    try:
        for kill in range(2):
            await write(world, run, attempts, kill * 100, kill * 100 + 100, seen)
            child.kill()
            await write(world, run, attempts, kill * 100 + 100, kill * 100 + 100, seen)
            child = service.start()
            await service.ready(child)
        for attempt in attempts:
            await world.finish_attempt(run, attempt)
        await world.finish(run)
        async with asyncio.timeout(30):
            ends = await asyncio.gather(*viewers)
    finally:
        for viewer in viewers:
            viewer.cancel()
    assert ends == [{"type": "end", "result": "passed"}] * VIEWERS
    for lines in seen:
        for name in ("build", "test"):
            assert [line for line in lines if line.startswith(name)] == [f"{name} {n}\n" for n in range(200)]
        assert len(lines) == 400


async def write(
    world: World, run: FakeRun, attempts: list[Attempt], first: int, end: int, seen: list[list[str]]
) -> None:
    """Lines of both attempts; returns when some viewer is in the middle of them."""
    for n in range(first, end):
        for attempt in attempts:
            await world.write(run, attempt, f"{attempt.step} {n}\n")
    if end > first:
        await eventually(lambda: any(len(lines) > 2 * first + 20 for lines in seen), 20, "a viewer to read on")


async def test_sigterm_closes_websockets_with_1012_and_ends_with_0(service: Service, world: World) -> None:
    run = world.add_run()
    child = service.start()
    await service.ready(child)
    async with connect(
        f"ws://127.0.0.1:{service.port}/v1/runs/{run.id}/logs/tail", additional_headers=HEADERS
    ) as socket:
        child.signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            await socket.wait_closed()
    assert socket.close_code == 1012
    assert child.wait(5) == 0


async def test_a_port_that_is_taken_is_one_line_and_exit_1(service: Service, world: World) -> None:
    first = service.start()
    await service.ready(first)
    second = service.start()
    assert second.wait(10) == 1
    assert second.stderr.count("\n") == 1
    assert f"127.0.0.1:{service.port} is taken" in second.stderr


@pytest.mark.parametrize(
    ("settings", "words", "code"),
    [
        ({"database_url": "postgresql://nobody@127.0.0.1:1/x"}, "cannot reach the database", 1),
        ({"nats_urls": ["nats://127.0.0.1:1"]}, "cannot connect to NATS", 1),
        ({"htp": "x"}, "http", 2),
        ({"no_auth": True, "http": "0.0.0.0:1", "allow_plaintext": True}, "loopback", 2),
    ],
)
async def test_what_is_wrong_at_the_start_is_said_in_a_line(
    processes: Processes, tmp_path: Path, nats: NatsAccount, migrated: Database, settings: Any, words: str, code: int
) -> None:
    values = {"database_url": migrated.dsn, "nats_urls": [nats.url], "start_timeout": 0.5, **settings}
    child = Service(processes, tmp_path, **values).start()
    assert child.wait(15) == code
    last = child.stderr.splitlines()[-1]
    assert words in last
    assert "Traceback" not in child.stderr


async def test_it_waits_for_nats_and_heals_after_its_restart(
    processes: Processes, tmp_path: Path, nats_server: NatsServer, migrated: Database
) -> None:
    nats_server.kill()
    service = Service(processes, tmp_path, database_url=migrated.dsn, nats_urls=[nats_server.url], start_timeout=30)
    child = service.start()
    child.wait_for_line("bus_not_connected")
    nats_server.start()
    await service.ready(child)
    nats_server.kill()
    async with httpx.AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{service.port}") as http:
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.get("/readyz")).status_code == 503
        answer = await http.get("/v1/agents", headers=HEADERS)
        assert (answer.status_code, answer.json()["code"]) == (503, "bus_unavailable")
    nats_server.start()
    await service.ready(child)


async def test_help_tells_what_it_is(processes: Processes) -> None:
    child = processes.start([VENV_BIN / "python", "-m", "proctor_api", "--help"], name="api")
    assert child.wait(20) == 0
    assert "--config FILE" in child.stdout
    assert "first_token_file names" in child.stdout


async def test_a_record_is_a_result_once_though_the_api_is_killed_between_the_two(
    service: Service, world: World, migrated: Database
) -> None:
    child = service.start()
    await service.ready(child)
    answer, asked = world._of_records, 0

    def kill_first(op: str, call: Any) -> bytes | None:
        nonlocal asked
        asked += op == "record.confirm"
        if op == "record.confirm" and asked == 1:
            child.kill()
            return None
        return answer(op, call)

    world._of_records = kill_first  # type: ignore[method-assign]
    about = {"run": new_id(), "run_number": 1, "step": new_id(), "step_name": "smoke", "attempt": 1}
    body = {"project": "functest", "case": "vPing", "pod": "lab", "declare": True}
    await world.record(RecordView.model_validate({"id": 1, **about, "body": body}))
    await eventually(lambda: not child.alive, 20, "the api to be killed")
    assert (world.confirmed, migrated.psql("SELECT count(*) FROM catalog.results")) == ([], "1")
    await service.ready(service.start())
    await eventually(lambda: world.confirmed == [1], 20, "the record to be confirmed")
    assert migrated.psql("SELECT count(*) FROM catalog.results") == "1"
