"""Several controllers as processes: killed, paused, let go again; and how one starts and ends."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from proctor_common.bus import Bus, BusError
from proctor_common.service import Stop
from proctor_controller.settings import ControllerSettings
from support.control import (
    Control,
    SecureNats,
    api_options,
    control,
    controller,
    controller_settings,
    until_ready,
)
from support.nats import NatsServer
from support.postgres import Database, PostgresServer
from support.processes import VENV_BIN, Child, Processes, free_port
from support.wait import eventually

QUICK = {
    "HEARTBEAT": "0.3",
    "SUSPECT_AFTER": "1",
    "LOST_AFTER": "2",
    "SWEEP_INTERVAL": "0.1",
    "WATCHDOG_INTERVAL": "0.5",
    "DUTY_LEASE": "1.5",
}


def environment(nats: NatsServer, database: Database, **changes: str) -> dict[str, str]:
    given = {"DATABASE_URL": database.dsn, "NATS_URLS": nats.url, **changes}
    if isinstance(nats, SecureNats):
        given |= {
            "NATS_NKEY": nats.controller.seed,
            "SYSTEM_NKEY": nats.system.seed,
            "ACCOUNT_KEY": nats.account.seed,
        }
    return {f"PROCTOR_CONTROLLER_{name}": value for name, value in given.items()}


def start(processes: Processes, name: str, env: dict[str, str], *args: str | Path) -> Child:
    return processes.start([VENV_BIN / "proctor-controller", *args], name=name, env=env)


@asynccontextmanager
async def calls(nats: SecureNats, database: Database) -> AsyncIterator[Control]:
    async with Bus(api_options(nats.url, nats.api.seed)) as bus:
        made = Control(nats.url, database, bus, patience=0.5)
        await until_ready(made)
        yield made


def holder(database: Database, duty: str = "agents") -> tuple[str, int] | None:
    """The replica that holds a duty, and its epoch."""
    row = database.psql(f"SELECT owner, epoch FROM control.duties WHERE name = '{duty}' AND expires_at > now()")
    owner, _, epoch = row.partition("|")
    return (owner, int(epoch)) if row else None


def replica(child: Child) -> str:
    return str(json.loads(child.wait_for_line("controller_ready"))["replica"])


async def test_duties_go_to_another_controller_when_one_is_killed_or_hangs(
    secure_nats: SecureNats, control_database: Database, processes: Processes
) -> None:
    env = environment(secure_nats, control_database, **QUICK)
    first, second = start(processes, "first", env), start(processes, "second", env)
    names = {replica(first): first, replica(second): second}
    mine, epoch = await eventually(lambda: holder(control_database), 10, "one to take the duty")
    holding = names.pop(mine)
    ((other, waiting),) = names.items()

    async with calls(secure_nats, control_database) as here:
        agent = await here.join("node-1")
        async with agent.connect() as bus:
            await agent.register(bus)

            async def beats() -> bool:
                return not (await agent.beat(bus, timeout=0.3)).refused

            async def while_it_beats(condition: Callable[[], bool], what: str) -> None:
                """A controller that hangs is still in the queue group: a beat that is lost to it is sent again."""

                async def holds() -> bool:
                    await eventually(beats, 5, "a beat", retry_on=(BusError,))
                    return condition()

                await eventually(holds, 15, what)

            def taken_by(name: str) -> int:
                """The epoch since which it holds the duty: on a busy machine one may have lost and retaken it."""
                found, since = holder(control_database) or ("", 0)
                return since if found == name and since > epoch else 0

            holding.pause()
            await while_it_beats(lambda: taken_by(other) > 0, "the other to take it over")
            epoch = taken_by(other)
            holding.go_on()
            await while_it_beats(lambda: "duty_lost" in holding.stderr, "what slept to notice that it lost it")
            assert holder(control_database) == (other, epoch) or "duty_lost" in waiting.stderr
            state = control_database.psql("SELECT state FROM control.agents")
            assert state != "lost", "what slept does not take those for lost who beat meanwhile"
            waiting.kill()
            await while_it_beats(lambda: taken_by(mine) > 0, "the first one to take it back")
    assert holding.terminate() == 0
    assert holder(control_database) is None, "one that ends lets go"


async def test_a_controller_that_ends_loses_no_request(secure_nats: SecureNats, control_database: Database) -> None:
    async with control(secure_nats, control_database) as here:
        for _ in range(3):
            await ask_while_one_of_two_ends(here, controller_settings(secure_nats, control_database))


async def ask_while_one_of_two_ends(here: Control, settings: ControllerSettings) -> None:
    answered = 0

    async def ask(stop: Stop) -> None:
        nonlocal answered
        while not stop.asked:
            await here.call("ping")
            answered += 1
        for _ in range(10):
            await here.call("ping")

    async with controller(settings) as stop, asyncio.TaskGroup() as tasks:
        for _ in range(16):
            tasks.create_task(ask(stop))
        await eventually(lambda: answered >= 100, what="requests to be under way")
        stop.ask("the test ends one of two")


async def test_a_controller_waits_for_what_is_not_there_yet_and_outlives_its_restart(processes: Processes) -> None:
    nats, postgres = SecureNats(), PostgresServer()
    try:
        postgres.start()
        database = postgres.create_database()
        postgres.stop()
        child = start(processes, "controller", environment(nats, database, **QUICK))
        postgres.start()
        nats.start()
        child.wait_for_line("controller_ready", 30)
        async with calls(nats, database) as here:
            agent = await here.join("node-1")
            async with agent.connect() as bus:
                await agent.register(bus)
                postgres.restart()
                await until_ready(here)

                async def beats() -> bool:
                    return not (await agent.beat(bus, timeout=1)).register_again

                await eventually(beats, 20, "a beat", retry_on=(BusError,))
                assert database.psql("SELECT state FROM control.agents") == "online"
        assert child.terminate() == 0
    finally:
        nats.close()
        postgres.close()


def test_a_controller_that_cannot_start_says_why_in_one_line(
    nats_server: NatsServer, control_database: Database, processes: Processes
) -> None:
    wrong: list[tuple[dict[str, str], str, int]] = [
        ({"NATS_URLS": "nats://192.0.2.1:4222"}, "not protected by TLS", 2),
        ({"ACCOUNT_KEY": "SUNONSENSE"}, "account_key", 2),
        ({"SEAL_KEY": "nonsense"}, "seal_key", 2),
        ({"NATS_CA_FILE": "/no/such/file"}, "nats_ca_file", 2),
        ({"HEARTBEAT": "20"}, "must rise in this order", 2),
        ({"DATABASE_URK": "x"}, "the nearest is PROCTOR_CONTROLLER_DATABASE_URL", 2),
        ({"METRICS_HTTP": "127.0.0.1:nonsense"}, "metrics_http", 1),
    ]
    children = [
        start(processes, said, environment(nats_server, control_database, **changes)) for changes, said, _ in wrong
    ]
    for child, (_, said, code) in zip(children, wrong, strict=True):
        assert child.wait(30) == code, child.output
        told = [line for line in child.stderr.splitlines() if not line.startswith("{")]
        assert said in "\n".join(told)
        assert len(told) == (2 if told[0].endswith(":") else 1)
        assert "Traceback" not in child.stderr
        assert child.stdout == ""


def test_help_and_settings_from_a_file(
    nats_server: NatsServer, control_database: Database, processes: Processes
) -> None:
    shown = start(processes, "help", {}, "--help")
    port = free_port()
    config = processes.folder / "controller.toml"
    config.write_text(
        f'database_url = "{control_database.dsn}"\nnats_urls = ["{nats_server.url}"]\n'
        f'metrics_http = "127.0.0.1:{port}"\n'
    )
    child = start(processes, "controller", {}, "--config", config)
    child.wait_for_line("controller_ready")
    assert httpx.get(f"http://127.0.0.1:{port}/healthz").text == "ok\n"
    assert "proctor_bus_connected 1.0" in httpx.get(f"http://127.0.0.1:{port}/metrics").text
    assert child.terminate() == 0
    assert shown.wait() == 0
    assert "--config" in shown.stdout
