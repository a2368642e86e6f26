"""Webhooks against a real HTTP server that takes, refuses, hangs, redirects and dies; controllers that die."""

import asyncio
import json
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_cli.init.certificates import new_ca, new_key, new_server_certificate
from proctor_common.messages.views import WebhookCall
from proctor_common.pg import transaction
from proctor_common.states import StepResult
from proctor_controller.db.duties import Held, claim_duty
from proctor_controller.db.runs.views import RunKey, find_run
from proctor_controller.db.session import session
from proctor_controller.domain.webhook import signature
from proctor_controller.duties.outbound import Allowed, NotSent, Outbound
from proctor_controller.duties.webhooks import WebhookSender
from proctor_controller.engine.engine import Engine
from support.control import SecureNats
from support.engine import FakeAgent, submit, until_finished
from support.nats import NatsServer
from support.postgres import Database
from support.processes import VENV_BIN, Processes, free_port
from support.wait import eventually
from support.web import Received, Reply, WebServer, web_server

LOCAL = ("127.0.0.1", "::1")


@pytest.fixture
def web() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


async def hold(database: AsyncEngine, owner: str = "c1") -> Held:
    async with transaction(database) as connection:
        held = await claim_duty(connection, "webhooks", owner, 600.0)
    assert held is not None
    return held


def sender(engine: Engine, *, hosts: tuple[str, ...] = LOCAL, timeout: float = 5.0, give_up: float = 3600.0) -> Any:
    outbound = Outbound(Allowed(hosts, public=True), timeout=timeout)
    return WebhookSender(engine.database, engine.services.seal, outbound, give_up=give_up)


async def finished_run(
    engine: Engine, agent: FakeAgent, database: Database, url: str, *, secret: str | None = None
) -> str:
    """A run that has ended and wants its webhook called."""
    agent.ends = None
    run = (await submit(engine, host="h1"))["id"]
    order = (await eventually(lambda: [o for o in agent.started if o.run == run], 5, "the order"))[0]
    wants = json.dumps({"webhook": {"url": url, "signed": secret is not None}})
    sealed = f"'{engine.services.seal.seal({'webhook_secret': secret}, run)}'" if secret is not None else "NULL"
    database.psql(f"UPDATE control.runs SET wants = '{wants}', sealed = {sealed} WHERE id = '{run}'")
    assert row(database, run) == []
    await agent.finish(order, StepResult.PASSED)
    await until_finished(engine, run)
    return str(run)


def row(database: Database, run: str) -> list[str]:
    """State, number of tries, last status and last reason."""
    found = database.psql(
        f"SELECT concat_ws('|', state, tries, coalesce(status::text, ''), reason) FROM control.webhooks"
        f" WHERE run_id = '{run}'"
    )
    return found.split("|") if found else []


async def call(engine: Engine, run: str) -> WebhookCall:
    """What the run's own view says of it."""
    async with session(engine.database) as db:
        found = await find_run(db, RunKey(run, None), None)
    assert found is not None and found.webhook is not None
    return found.webhook


def make_due(database: Database) -> None:
    database.psql("UPDATE control.webhooks SET next_at = now() WHERE state = 'waiting'")


async def test_the_end_of_a_run_is_told_once_and_signed(
    engine: Engine, agent: FakeAgent, control_database: Database, web: WebServer
) -> None:
    run = await finished_run(engine, agent, control_database, f"{web.url}/hook", secret="swordfish")
    held = await hold(engine.database)
    work = sender(engine)
    await work.turn(held)
    await work.turn(held)
    (seen,) = web.seen
    assert (seen.method, seen.path, seen.headers["content-type"]) == ("POST", "/hook", "application/json")
    told = seen.json()
    assert told["type"] == "run.finished"
    assert (told["data"]["id"], told["data"]["state"], told["data"]["result"]) == (run, "finished", "passed")
    stamp, id_ = int(seen.headers["webhook-timestamp"]), seen.headers["webhook-id"]
    assert abs(stamp - time.time()) < 30
    assert seen.headers["webhook-signature"] == signature("swordfish", id_, stamp, seen.body)
    assert row(control_database, run) == ["taken", "1", "200", ""]
    assert "swordfish" not in control_database.psql("SELECT * FROM control.webhooks JOIN control.runs r ON true")


async def test_it_is_tried_until_it_is_taken(
    engine: Engine, agent: FakeAgent, control_database: Database, web: WebServer
) -> None:
    answers = [Reply(500), Reply(302, headers={"Location": f"{web.url}/elsewhere"}), Reply(drop=True), Reply(204)]
    web.answer = lambda request: answers.pop(0)
    run = await finished_run(engine, agent, control_database, web.url)
    held = await hold(engine.database)
    work = sender(engine)
    told = []
    assert (await call(engine, run)).state == "waiting"
    for _ in range(4):
        make_due(control_database)
        await work.turn(held)
        told.append(row(control_database, run))
        shown = await call(engine, run)
        assert (shown.tries, shown.reason, shown.next_at is None) == (len(told), told[-1][3], shown.state == "taken")
    assert [each[:3] for each in told] == [
        ["waiting", "1", "500"], ["waiting", "2", "302"], ["waiting", "3", ""], ["taken", "4", "204"]
    ]  # fmt: skip
    assert told[0][3] == "answered 500"
    assert "redirects are not followed" in told[1][3]
    assert (await call(engine, run)).model_dump(include={"state", "tries", "status", "reason", "next_at"}) == {
        "state": "taken", "tries": 4, "status": 204, "reason": "", "next_at": None
    }  # fmt: skip
    assert len({request.headers["webhook-id"] for request in web.seen}) == 1
    assert len({request.body for request in web.seen}) == 1
    assert {request.path for request in web.seen} == {"/"}
    assert "webhook-signature" not in web.seen[0].headers


async def test_pauses_are_kept_and_there_is_an_end(
    engine: Engine, agent: FakeAgent, control_database: Database
) -> None:
    run = await finished_run(engine, agent, control_database, f"http://127.0.0.1:{free_port()}/")
    held = await hold(engine.database)
    await sender(engine).turn(held)
    await sender(engine).turn(held)  # not due yet
    assert row(control_database, run) == ["waiting", "1", "", "Connection refused"]
    make_due(control_database)
    await sender(engine, give_up=5.0).turn(held)
    assert row(control_database, run)[:2] == ["given_up", "2"]


async def test_one_that_hangs_keeps_nobody_waiting_for_long(
    engine: Engine, agent: FakeAgent, control_database: Database, web: WebServer
) -> None:
    web.answer = lambda request: Reply(hang=30)
    with web_server() as quick:
        slow = await finished_run(engine, agent, control_database, web.url)
        fine = await finished_run(engine, agent, control_database, quick.url)
        started = time.monotonic()
        await sender(engine, timeout=0.3).turn(await hold(engine.database))
        assert time.monotonic() - started < 3
    assert row(control_database, fine)[0] == "taken"
    assert row(control_database, slow)[:2] == ["waiting", "1"]
    assert "no answer within 0.3 s" in row(control_database, slow)[3]


async def test_certificates_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ca_key, key = new_key(), new_key()
    ca = new_ca(ca_key)
    for name, content in (("ca", ca), ("key", key), ("chain", new_server_certificate(ca_key, ca, key, ["127.0.0.1"]))):
        (tmp_path / name).write_bytes(content)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "chain", tmp_path / "key")

    async def post(url: str) -> int:
        return await Outbound(Allowed(["127.0.0.1", "localhost"], public=False), timeout=5.0).post(url, {}, b"{}")

    with web_server(tls=tls) as web:
        with pytest.raises(NotSent, match="CERTIFICATE_VERIFY_FAILED"):
            await post(web.url)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca"))
        assert await post(web.url) == 200
        with pytest.raises(NotSent, match="CERTIFICATE_VERIFY_FAILED"):
            await post(web.url.replace("127.0.0.1", "localhost"))
        assert len(web.seen) == 1


async def test_it_goes_only_where_the_settings_let_it(
    engine: Engine, agent: FakeAgent, control_database: Database, web: WebServer
) -> None:
    work, held = sender(engine, hosts=()), await hold(engine.database)
    for url in (web.url, f"http://localhost:{web.port}/", "http://169.254.169.254/latest", "file:///etc/passwd"):
        run = await finished_run(engine, agent, control_database, url)
        await work.turn(held)
        state, _, _, reason = row(control_database, run)
        assert (state, bool(reason)) == ("given_up", True), url
    assert web.seen == []


async def test_a_fault_that_nobody_foresaw_is_a_try_like_any_other(
    engine: Engine, agent: FakeAgent, control_database: Database, web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, held = sender(engine), await hold(engine.database)
    run = await finished_run(engine, agent, control_database, f"{web.url}/ñ")
    await work.turn(held)
    assert row(control_database, run)[:2] == ["given_up", "1"]

    sealed = await finished_run(engine, agent, control_database, web.url, secret="x")
    control_database.psql(f"UPDATE control.runs SET sealed = 'v1.gone.x' WHERE id = '{sealed}'")
    plain = await finished_run(engine, agent, control_database, web.url)

    async def break_down(*args: Any) -> int:
        raise KeyError("x")

    monkeypatch.setattr(Outbound, "post", break_down)
    await work.turn(held)
    assert row(control_database, sealed)[:2] == ["waiting", "1"]
    assert "seal_key" in row(control_database, sealed)[3]
    assert row(control_database, plain)[:2] == ["waiting", "1"]
    assert "KeyError" in row(control_database, plain)[3]
    await work.turn(held)  # not due yet
    assert row(control_database, plain)[:2] == ["waiting", "1"]


async def test_it_says_the_same_when_hosts_were_given_back_meanwhile(
    engine: Engine, agent: FakeAgent, control_database: Database, web: WebServer
) -> None:
    answers = [Reply(500), Reply(200)]
    web.answer = lambda request: answers.pop(0)
    run = await finished_run(engine, agent, control_database, web.url)
    work, held = sender(engine), await hold(engine.database)
    for until in ("now() + interval '1 hour'", "NULL"):
        control_database.psql(f"UPDATE control.runs SET hold_until = {until} WHERE id = '{run}'")
        make_due(control_database)
        await work.turn(held)
    assert len(web.seen) == 2
    assert web.seen[0].body == web.seen[1].body


async def test_the_row_is_written_with_the_end_and_with_no_other_change(
    engine: Engine, agent: FakeAgent, control_database: Database, web: WebServer
) -> None:
    await finished_run(engine, agent, control_database, web.url)
    agent.ends = StepResult.PASSED
    other = (await submit(engine, host="h1"))["id"]
    await until_finished(engine, other)
    control_database.psql("UPDATE control.runs SET state = state")
    assert control_database.psql("SELECT count(*) FROM control.webhooks") == "1"


async def test_a_controller_that_lost_the_duty_writes_nothing(
    engine: Engine, agent: FakeAgent, control_database: Database, web: WebServer
) -> None:
    run = await finished_run(engine, agent, control_database, web.url)
    stale = await hold(engine.database, "c1")

    def taken_over(request: Received) -> Reply:
        # The answer comes when another controller holds the duty already.
        control_database.psql("UPDATE control.duties SET epoch = epoch + 1, owner = 'c2'")
        return Reply(200)

    web.answer = taken_over
    await sender(engine).turn(stale)
    assert row(control_database, run)[:2] == ["waiting", "0"]
    await sender(engine).turn(stale)
    assert len(web.seen) == 1


async def test_a_controller_killed_between_answer_and_note_leaves_it_to_the_next(
    engine: Engine,
    agent: FakeAgent,
    control_database: Database,
    web: WebServer,
    nats_server: NatsServer,
    processes: Processes,
) -> None:
    run = await finished_run(engine, agent, control_database, web.url)
    env = {
        "DATABASE_URL": control_database.dsn,
        "NATS_URLS": nats_server.url,
        "DUTY_LEASE": "1",
        "WEBHOOK_HOSTS": json.dumps(list(LOCAL)),
        "WEBHOOK_INTERVAL": "0.2",
    }
    assert not isinstance(nats_server, SecureNats)

    def start(name: str) -> Any:
        words = {f"PROCTOR_CONTROLLER_{key}": value for key, value in env.items()}
        return processes.start([VENV_BIN / "proctor-controller"], name=name, env=words)

    first = start("first")

    def kill_then_answer(request: Received) -> Reply:
        first.kill()
        return Reply(200)

    web.answer = kill_then_answer
    await eventually(lambda: web.seen, 20, "the first call")
    await asyncio.to_thread(first.wait, 10)
    assert row(control_database, run)[:2] == ["waiting", "0"]
    web.answer = lambda request: Reply(200)
    start("second")
    await eventually(lambda: row(control_database, run)[:2] == ["taken", "1"], 20, "the second call")
    assert len(web.seen) == 2
    assert web.seen[0].headers["webhook-id"] == web.seen[1].headers["webhook-id"]
    assert web.seen[0].body == web.seen[1].body
