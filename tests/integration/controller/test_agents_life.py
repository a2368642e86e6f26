"""Heartbeats, silence, instances, registrations and what operators do to agents."""

import json
from collections.abc import AsyncIterator

import pytest

from proctor_common import subjects
from proctor_common.bus import Bus, BusTimeout, Message
from proctor_common.errors import Code
from proctor_common.ids import new_id
from proctor_common.messages.base import decode
from proctor_common.messages.calls.operation import Actor
from proctor_common.messages.events import AttemptRef, MethodSpec, PluginSpec, StepFinished, TargetSpec
from proctor_common.messages.orders import DrainOrder, DrainReply
from proctor_common.messages.pages import MAX_REPLY
from proctor_common.states import Role, StepResult
from support.control import Agent, Control, SecureNats, control, new_key, refused
from support.postgres import Database
from support.wait import eventually

QUICK = {"heartbeat": 0.2, "suspect_after": 0.6, "lost_after": 1.2, "sweep_interval": 0.1, "duty_lease": 1.5}
RED = Actor(name="red admin", role=Role.ADMIN, groups=["red"])


@pytest.fixture
async def quick(secure_nats: SecureNats, control_database: Database) -> AsyncIterator[Control]:
    async with control(secure_nats, control_database, **QUICK) as made:
        yield made


async def state_of(here: Control, name: str) -> str:
    return str((await here.call("agent.get", {"agent": name}))["state"])


async def test_who_is_silent_becomes_suspect_then_lost_and_returns(quick: Control) -> None:
    silent, lively = await quick.join("silent"), await quick.join("lively")
    async with silent.connect() as one, lively.connect() as two:
        await silent.register(one)
        await lively.register(two)
        seen: list[str] = []

        async def watch() -> bool:
            await lively.beat(two)
            assert await state_of(quick, "lively") == "online"
            seen.append(await state_of(quick, "silent"))
            return seen[-1] == "lost"

        await eventually(watch, 15, "the silent agent to be lost", retry_on=())
        assert list(dict.fromkeys(seen)) == ["online", "suspect", "lost"]
        view = await quick.call("agent.get", {"agent": "silent"})
        assert not view["ready"]
        assert "heartbeats stopped" in view["reason"]
        assert not (await silent.beat(one)).refused
        assert await state_of(quick, "silent") == "online"


async def test_what_is_no_heartbeat_changes_nothing(here: Control) -> None:
    agent = await here.join("node-1")
    async with agent.connect() as bus:
        assert (await agent.beat(bus)).register_again, "it has not registered yet"
        await agent.register(bus)
        for payload in (b"", b"{}", b"\xff", b"[" * 100_000):
            with pytest.raises(BusTimeout):
                await bus.request(subjects.heartbeat(agent.id), payload, timeout=0.1)
        for instance in ("", "a\0b", "x" * 1000, "ä"):
            stranger = Agent(agent.id, agent.host, agent.key, agent.url, instance=instance)
            assert (await stranger.beat(bus)).refused
        assert not (await agent.beat(bus)).register_again


async def test_a_restarted_agent_replaces_itself_at_once(here: Control) -> None:
    agent = await here.join("node-1")
    async with agent.connect() as bus:
        await agent.register(bus)
        first = agent.instance
    agent.instance = new_id()
    async with agent.connect() as bus:
        assert (await agent.beat(bus)).register_again
        assert not (await agent.register(bus)).refused
        assert not (await agent.beat(bus)).register_again
        late = Agent(agent.id, agent.host, agent.key, agent.url, instance=first)
        reply = await late.beat(bus)
        assert agent.instance in reply.refused


async def test_of_two_that_speak_as_one_the_later_is_refused_and_both_are_reported(here: Control) -> None:
    agent = await here.join("node-1")
    clone = Agent(agent.id, agent.host, agent.key, agent.url)
    async with agent.connect() as bus:
        await agent.register(bus)
        async with clone.connect() as other:
            for _ in range(2):
                reply = await clone.register(other)
                assert agent.instance in reply.refused
                assert agent.instance in (await clone.beat(other)).refused
                assert not (await agent.beat(bus)).refused
        view = await here.call("agent.get", {"agent": "node-1"})
        assert clone.instance in view["reason"]
        assert view["ready"]
    async with clone.connect() as other:
        assert not (await clone.register(other)).refused
    assert not (await here.call("agent.get", {"agent": "node-1"}))["reason"]


async def test_an_instance_that_hangs_makes_room_after_three_beats(quick: Control) -> None:
    agent = await quick.join("node-1")
    after = Agent(agent.id, agent.host, agent.key, agent.url)
    async with agent.connect() as hanging, after.connect() as bus:
        await agent.register(hanging)
        assert (await after.register(bus)).refused

        async def takes_over() -> bool:
            return not (await after.register(bus)).refused

        await eventually(takes_over, 10, "the instance that hangs to make room")
        assert (await agent.beat(hanging)).refused


async def test_a_registration_over_the_limits_is_refused_with_the_reason(here: Control) -> None:
    agent = await here.join("node-1")

    def plugin(parameters: dict[str, object], count: int = 1) -> dict[str, PluginSpec]:
        return {"p": PluginSpec(methods={f"m{n}": MethodSpec(parameters=parameters) for n in range(count)})}

    deep: dict[str, object] = {}
    for _ in range(60):
        deep = {"not": deep}
    wrong: list[tuple[dict[str, object], str]] = [
        ({"plugins": plugin({"type": "object", "description": "x" * 70_000})}, "p.m0 has 7"),
        ({"plugins": plugin({"type": "object"}, 201)}, "201 methods"),
        ({"plugins": plugin({"$ref": "http://127.0.0.1/x"})}, "outside"),
        ({"plugins": plugin({"$ref": "file:///etc/passwd"})}, "outside"),
        ({"plugins": plugin({"$id": "http://127.0.0.1/", "$ref": "#/x"})}, "$id"),
        ({"plugins": plugin({"type": "nonsense"})}, "not a JSON Schema"),
        ({"plugins": plugin({"properties": {"a": {"pattern": "(a+)\\1"}}})}, "pattern"),
        ({"plugins": plugin(deep)}, "deeper"),
        ({"plugins": {"a.b": PluginSpec()}}, "not a name of a plugin"),
        ({"default_target": "nowhere"}, "default target"),
        ({"targets": {f"t{n}": TargetSpec(host="h") for n in range(201)}}, "targets"),
        ({"slots": 0}, "slots"),
        (
            {"plugins": {f"p{n}": PluginSpec(description="x" * 4000) for n in range(100)}, "version": "v" * 500_000},
            "limit",
        ),
    ]
    async with agent.connect() as bus:
        for changes, reason in wrong:
            given = {**agent.registration().model_dump(), **changes}
            payload = json.dumps(given, default=lambda value: value.model_dump()).encode()
            reply = json.loads(await bus.request(subjects.registration(agent.id), payload, timeout=10))
            assert reason in reply["refused"], (reason, reply["refused"])
        for payload in (b"", b"[]", b"{", b"\xff", b"[" * 50_000):
            reply = json.loads(await bus.request(subjects.registration(agent.id), payload, timeout=10))
            assert reply["refused"]
        assert (await here.call("agent.get", {"agent": "node-1"}))["plugins"] == {}
        assert not (await agent.register(bus)).refused


async def test_leftovers_keep_work_away_until_they_are_gone(here: Control) -> None:
    agent = await here.join("node-1")
    async with agent.connect() as bus:
        await agent.register(bus, leftovers=[AttemptRef(step=new_id(), attempt=1)])
        view = await here.call("agent.get", {"agent": "node-1"})
        assert (view["ready"], "given up" in view["reason"]) == (False, True)
        await agent.register(bus)
        assert (await here.call("agent.get", {"agent": "node-1"}))["ready"]


async def test_a_lost_agent_that_returns_gets_work_when_what_was_given_up_is_gone(quick: Control) -> None:
    agent = await quick.join("node-1")
    given_up = AttemptRef(step=new_id(), attempt=1, token="t")
    async with agent.connect() as bus:
        await agent.register(bus)
        await eventually(lambda: _is_state(quick, "node-1", "lost"), 15, "the agent to be lost")
        for _ in range(3):
            reply = await agent.beat(bus, attempts=(given_up,))
            assert reply.unwanted == [given_up]
            view = await quick.call("agent.get", {"agent": "node-1"})
            assert (view["state"], view["ready"]) == ("online", False)
        assert (await agent.beat(bus)).unwanted == []
        assert (await quick.call("agent.get", {"agent": "node-1"}))["ready"]


async def _is_state(here: Control, name: str, state: str) -> bool:
    return await state_of(here, name) == state


async def test_an_agent_is_drained_and_undrained(here: Control) -> None:
    agent = await here.join("node-1")
    async with agent.connect() as bus:
        await agent.register(bus)
        for _ in range(2):
            view = await here.call("agent.drain", {"agent": "node-1"})
            assert (view["draining"], view["ready"]) == (True, False)
        assert (await agent.beat(bus)).draining
        told: list[bool] = []

        async def hear(message: Message) -> bytes:
            told.append(decode(DrainOrder, message.data).draining)
            return DrainReply(draining=False).encode()

        await bus.serve(subjects.order(agent.id, "drain"), hear)
        view = await here.call("agent.undrain", {"agent": agent.id})
        assert (view["draining"], view["ready"]) == (False, True)
        assert told == [False], "it takes orders at once"
        assert not (await agent.beat(bus)).draining


async def test_a_drained_agent_goes_on_for_a_run_that_has_leased_it(here: Control) -> None:
    agent = await here.join("node-1")
    async with agent.connect() as bus:
        await agent.register(bus)
        here.database.psql(
            f"""INSERT INTO control.runs (id, name, kind, state, version, event_seq, attempt_seq, undecided, timeout_s)
                VALUES ('{new_id()}', 'r', 'plan', 'running', 1, 1, 1, 1, 1);
                INSERT INTO control.allocations (run_id, role, idx, agent_id, host, exclusive)
                SELECT id, 'dut', 0, '{agent.id}', 'node-1', true FROM control.runs"""
        )
        await here.call("agent.drain", {"agent": "node-1"})
        assert not (await agent.beat(bus)).draining
        here.database.psql("DELETE FROM control.allocations")
        assert (await agent.beat(bus)).draining


async def test_an_agent_that_there_is_none_of_is_not_found(here: Control) -> None:
    for op in ("agent.get", "agent.drain", "agent.undrain", "agent.release", "agent.remove"):
        for name in ("nobody", new_id(), "99", "99999999999999999999", "", "a\0b", "*"):
            async with refused(Code.NOT_FOUND):
                await here.call(op, {"agent": name})


async def test_ten_forged_reports_cut_an_agent_off(here: Control) -> None:
    agent = await here.join("node-1")

    def counted() -> int:
        return int(here.database.psql(f"SELECT forged FROM control.agents WHERE id = '{agent.id}'"))

    async def forge(bus: Bus) -> None:
        step = new_id()
        report = StepFinished(run=new_id(), step=step, attempt=1, token="t", result=StepResult.PASSED)
        await bus.append(subjects.event(agent.id, step, 1), report.encode())

    async with agent.connect() as bus:
        await agent.register(bus)
        for _ in range(9):
            await forge(bus)
        await eventually(lambda: counted() == 9, what="the reports to be counted")
        assert await state_of(here, "node-1") == "online"
        await forge(bus)
        await eventually(lambda: not bus.connected, what="the agent to be cut off")
    view = await here.call("agent.get", {"agent": agent.id})
    assert view["state"] == "removed"
    assert "never given" in view["reason"]
    audit = (await here.call("audit.list"))["items"]
    assert [row["action"] for row in audit if row["actor"] == "controller"] == ["agent.cut_off"]


async def test_logs_of_strangers_are_purged_and_others_stay(
    secure_nats: SecureNats, control_database: Database
) -> None:
    async with control(secure_nats, control_database, log_sweep_interval=0.2, stranger_age=0.0) as here:
        agent = await here.join("node-1")
        run, step, strange = new_id(), new_id(), new_id()
        here.database.psql(
            f"""INSERT INTO control.runs (id, name, kind, state, version, event_seq, attempt_seq, undecided, timeout_s)
                VALUES ('{run}', 'r', 'case', 'running', 1, 1, 1, 0, 1);
            INSERT INTO control.steps (id, run_id, idx, node, name, plugin, method, parameters, state, attempt, tries,
                sends, refusals, timeout_s, grace_s)
                VALUES ('{step}', '{run}', 0, 'n', 'n', 'p', 'm', '{{}}', 'running', 1, 1, 1, 0, 1, 1);
            INSERT INTO control.attempts (step_id, attempt, run_id, idx, agent_id, token, state)
                VALUES ('{step}', 1, '{run}', 1, '{agent.id}', 't', 'running')"""
        )
        async with agent.connect() as bus:
            known = subjects.log(agent.id, run, step, 1)
            for subject in (
                known,
                subjects.log(agent.id, run, step, 2),
                subjects.log(agent.id, run, strange, 1),
                subjects.log(agent.id, strange, step, 1),
                subjects.logs_of(agent.id).replace(">", "no.such.thing.at.all"),
            ):
                await bus.append(subject, b"x")
            options = agent.options(
                name="a controller", nkey_seed=secure_nats.controller.seed, inbox_prefix="_INBOX_ctl"
            )
            async with Bus(options) as reading:

                async def only_known() -> bool:
                    mine = subjects.logs_of(agent.id)
                    return list(await reading.stream_subjects(subjects.LOG_STREAM, mine)) == [known]

                await eventually(only_known, 10, "the strangers' logs to be purged")


async def test_groups_isolate(here: Control) -> None:
    for name in ("red", "blue"):
        assert (await here.call("group.put", {"name": name}))["agents"] == []
    await here.join("red-1", groups=["red"])
    await here.join("blue-1", groups=["blue"])
    both = await here.join("both", groups=["red", "blue"])
    await here.join("alone")
    seen = [view["host"] for view in (await here.call("agent.list", actor=RED))["items"]]
    assert seen == ["both", "red-1"]
    assert [view["name"] for view in (await here.call("group.list", actor=RED))["items"]] == ["red"]
    assert (await here.call("group.get", {"name": "red"}, RED))["agents"] == ["both", "red-1"]
    for op, body in (
        ("agent.get", {"agent": "blue-1"}),
        ("agent.drain", {"agent": "alone"}),
        ("agent.remove", {"agent": "blue-1"}),
        ("group.get", {"name": "blue"}),
        ("group.delete", {"name": "blue"}),
        ("group.bind", {"name": "red", "agent": "blue-1"}),
        ("group.bind", {"name": "blue", "agent": "red-1"}),
        ("group.unbind", {"name": "blue", "agent": "both"}),
    ):
        async with refused(Code.NOT_FOUND):
            await here.call(op, body, RED)
    for op, body in (
        ("agent.remove", {"agent": "both"}),
        ("agent.drain", {"agent": "both"}),
        ("group.put", {"name": "green"}),
        ("audit.list", {}),
    ):
        async with refused(Code.FORBIDDEN):
            await here.call(op, body, RED)
    nobody = Actor(name="nobody", role=Role.ADMIN, groups=[])
    assert (await here.call("agent.list", actor=nobody))["items"] == []
    assert (await here.call("group.unbind", {"name": "blue", "agent": "both"}))["agents"] == ["blue-1"]
    assert (await here.call("agent.drain", {"agent": both.id}, RED))["draining"]


async def test_groups_are_made_bound_and_deleted(here: Control) -> None:
    await here.join("node-1")
    for _ in range(2):
        assert (await here.call("group.put", {"name": "red"}))["name"] == "red"
        assert (await here.call("group.bind", {"name": "red", "agent": "node-1"}))["agents"] == ["node-1"]
    assert (await here.call("agent.get", {"agent": "node-1"}))["groups"] == ["red"]
    assert (await here.call("group.delete", {"name": "red"}))["agents"] == ["node-1"]
    assert (await here.call("agent.get", {"agent": "node-1"}))["groups"] == []
    for op, body in (
        ("group.delete", {"name": "red"}),
        ("group.get", {"name": "a\0"}),
        ("group.delete", {"name": "a\0"}),
        ("group.bind", {"name": "a\0", "agent": "node-1"}),
        ("group.get", {"name": "a" * 10_000}),
        ("group.bind", {"name": "red", "agent": "node-1"}),
    ):
        async with refused(Code.NOT_FOUND):
            await here.call(op, body)
    for name in ("", "a b", ".a", "a" * 64, "a\n"):
        async with refused(Code.INVALID):
            await here.call("group.put", {"name": name})


async def test_what_changes_something_is_in_the_audit(here: Control) -> None:
    await here.call("group.put", {"name": "red"})
    await here.join("node-1", groups=["red"])
    for op in ("agent.drain", "agent.undrain", "agent.release"):
        await here.call(op, {"agent": "node-1"})
    await here.call("group.unbind", {"name": "red", "agent": "node-1"})
    await here.call("agent.remove", {"agent": "node-1"})
    await here.call("group.delete", {"name": "red"})
    added = await here.call("audit.add", {"action": "token.create", "object": "t", "detail": {"role": "viewer"}})
    first = await here.call("audit.list", {"limit": 3})
    rest = await here.call("audit.list", {"cursor": first["next"]})
    rows = first["items"] + rest["items"]
    assert rows[0] == added
    assert rest["next"] is None
    assert [row["action"] for row in reversed(rows)] == [
        "group.put",
        "agent.enrol",
        "agent.join",
        "agent.drain",
        "agent.undrain",
        "agent.release",
        "group.unbind",
        "agent.remove",
        "group.delete",
        "token.create",
    ]
    assert {row["actor"] for row in rows} == {"root"}
    async with refused(Code.INVALID):
        await here.call("audit.list", {"cursor": "x"})
    strange = {"action": "a\0b", "object": "\0", "detail": {"k\0": ["\0"]}}
    assert (await here.call("audit.add", strange))["id"] > added["id"]


async def test_a_list_gives_what_fits_and_where_to_go_on(here: Control) -> None:
    schema = {"type": "object", "description": "x" * 60_000}
    methods = {f"m{n}": MethodSpec(parameters=schema) for n in range(10)}
    for n in range(4):
        agent = await here.join(f"node-{n}")
        async with agent.connect() as bus:
            assert not (await agent.register(bus, plugins={"p": PluginSpec(methods=methods)})).refused
    seen: list[str] = []
    cursor, pages = None, 0
    while cursor or not pages:
        page = await here.call("agent.list", {"cursor": cursor, "limit": 3})
        assert len(json.dumps(page)) <= MAX_REPLY
        seen += [view["host"] for view in page["items"]]
        cursor, pages = page["next"], pages + 1
    assert seen == ["node-0", "node-1", "node-2", "node-3"]
    assert pages == 4


async def test_a_call_that_is_none_gets_an_answer(here: Control) -> None:
    async with refused(Code.NOT_FOUND):
        await here.call("no.such.thing")
    async with refused(Code.INVALID) as errors:
        await here.call("agent.list", {"limit": 0})
    assert errors[0].details["errors"][0]["path"] == "limit"
    for number in (b"1e400", b"NaN", b"-Infinity"):
        asked = b'{"actor": {"name": "r", "role": "admin"}, "body": {"action": "x", "detail": {"a": [%s]}}}' % number
        reply = await here.bus.request(subjects.call("audit.add"), asked, timeout=5)
        assert json.loads(reply[1:])["code"] == "invalid"
    for payload in (b"", b"{}", b"[]", b"\xff", b'{"actor": {"name": "\\ud800", "role": "admin"}}'):
        reply = await here.bus.request(subjects.call("agent.list"), payload, timeout=5)
        assert reply.startswith(b"-")
        assert json.loads(reply[1:])["code"] == "bad_request"


async def test_keys_are_not_shown(here: Control, secure_nats: SecureNats) -> None:
    key = new_key()
    await here.join("node-1", key=key)
    shown = json.dumps(await here.call("agent.get", {"agent": "node-1"}))
    assert key.seed not in shown
    assert secure_nats.account.seed not in here.database.psql("SELECT * FROM control.audit")


async def test_what_may_live_on_on_a_host_is_told_until_it_is_gone(here: Control) -> None:
    agent = await here.join("node-1")
    async with agent.connect() as bus:
        await agent.register(bus)
        await agent.beat(bus, remains=["what s.1 left on target lab is not known to be gone", "\0 odd"])
        view = await here.call("agent.get", {"agent": "node-1"})
        assert (view["ready"], view["reason"]) == (True, "what s.1 left on target lab is not known to be gone;  odd")
        assert "gone" in (await here.call("agent.release", {"agent": "node-1"}))["reason"]
        await agent.beat(bus)
        view = await here.call("agent.get", {"agent": "node-1"})
        assert (view["ready"], view["reason"]) == (True, "")
