"""Enrolment and join."""

from proctor_common.errors import Code
from proctor_common.messages.calls.operation import Actor
from proctor_common.states import Role
from support.control import Control, new_key, refused
from support.wait import eventually


async def test_an_agent_joins_registers_and_beats(here: Control) -> None:
    agent = await here.join("node-1")
    assert (await here.call("agent.get", {"agent": agent.id}))["state"] == "enrolled"
    async with agent.connect() as bus:
        reply = await agent.register(bus)
        assert (reply.refused, reply.agent, reply.host, reply.number) == ("", agent.id, "node-1", 1)
        beat = await agent.beat(bus)
        assert (beat.refused, beat.register_again, beat.draining) == ("", False, False)
    for name in ("node-1", agent.id, "1"):
        view = await here.call("agent.get", {"agent": name})
        assert (view["id"], view["state"], view["ready"], view["slots"]) == (agent.id, "online", True, 2)
    assert view["plugins"]["linux_system"]["methods"]["ping"]["description"] == "answers"


async def test_a_token_is_good_for_one_key(here: Control) -> None:
    enrolment = await here.call("agent.enrol", {"host": "node-1"})
    key = new_key()
    first = await here.call("agent.join", {"token": enrolment["token"], "public_key": key.public})
    assert first["host"] == "node-1"
    assert await here.call("agent.join", {"token": enrolment["token"], "public_key": key.public}) == first
    async with refused(Code.CONFLICT):
        await here.call("agent.join", {"token": enrolment["token"], "public_key": new_key().public})
    assert enrolment["token"] not in here.database.psql("SELECT * FROM control.enrolments; SELECT * FROM control.audit")


async def test_a_token_ends(here: Control) -> None:
    used, unused = [await here.call("agent.enrol", {"host": host}) for host in ("node-1", "node-2")]
    key = new_key()
    await here.call("agent.join", {"token": used["token"], "public_key": key.public})
    here.database.psql("UPDATE control.enrolments SET expires_at = now()")
    for token in (used["token"], unused["token"], "join_nonsense"):
        async with refused(Code.UNAUTHENTICATED):
            await here.call("agent.join", {"token": token, "public_key": key.public})
    assert here.database.psql("SELECT count(*) FROM control.agents") == "1"


async def test_a_new_enrolment_ends_the_unused_one(here: Control) -> None:
    first, second = [await here.call("agent.enrol", {"host": "node-1"}) for _ in range(2)]
    async with refused(Code.UNAUTHENTICATED):
        await here.use(first["token"], "node-1", new_key())
    await here.use(second["token"], "node-1", new_key())


async def test_what_is_no_public_key_is_refused_and_the_token_stays_good(here: Control) -> None:
    token = (await here.call("agent.enrol", {"host": "node-1"}))["token"]
    good = new_key()
    other_end = "A" if good.public[-10] != "A" else "B"
    damaged = good.public[:-10] + other_end + good.public[-9:]
    for key in ("", "U", "A" + "A" * 55, "U" * 56, "UÄ" + "A" * 54, good.public[:-1] + "0", damaged, good.seed):
        async with refused(Code.INVALID) as errors:
            await here.call("agent.join", {"token": token, "public_key": key})
        assert errors[0].details["errors"][0]["path"] == "public_key"
    await here.use(token, "node-1", good)


async def test_one_key_cannot_be_two_agents(here: Control) -> None:
    agent = await here.join("node-1")
    token = (await here.call("agent.enrol", {"host": "node-2"}))["token"]
    async with refused(Code.CONFLICT):
        await here.use(token, "node-2", agent.key)


async def test_a_removed_agents_key_does_not_come_back(here: Control) -> None:
    agent = await here.join("node-1")
    await here.call("agent.remove", {"agent": "node-1"})
    token = (await here.call("agent.enrol", {"host": "node-1"}))["token"]
    async with refused(Code.CONFLICT):
        await here.use(token, "node-1", agent.key)
    again = await here.use(token, "node-1", new_key())
    assert again.id != agent.id


async def test_a_host_that_lives_is_not_given_away(here: Control) -> None:
    agent = await here.join("node-1")
    late = (await here.call("agent.enrol", {"host": "node-1"}))["token"]
    async with agent.connect() as bus:
        await agent.register(bus)
        async with refused(Code.CONFLICT) as errors:
            await here.call("agent.enrol", {"host": "node-1"})
        assert "remove it first" in errors[0].message
        async with refused(Code.CONFLICT):
            await here.use(late, "node-1", new_key())
        assert not (await agent.beat(bus)).refused


async def test_a_host_set_up_anew_stays_the_same_agent_and_its_old_key_is_cut_off(here: Control) -> None:
    agent = await here.join("node-1")
    async with agent.connect() as bus:
        await agent.register(bus)
        here.database.psql("UPDATE control.agents SET state = 'lost', last_heartbeat = now() - interval '2 minutes'")
        again = await here.join("node-1")
        assert (again.id, again.key) == (agent.id, again.key)
        assert again.key != agent.key
        await eventually(lambda: not bus.connected, what="the old key's connection to be closed")
        async with again.connect() as mine:
            assert not (await again.register(mine)).refused
        assert not await bus.wait_connected(0.5)


async def test_what_cannot_be_enrolled_is_named(here: Control) -> None:
    wrong: list[tuple[dict[str, object], str]] = [
        ({"host": ""}, "host"),
        ({"host": "a/b"}, "host"),
        ({"host": "a" * 64}, "host"),
        ({"host": "a\n"}, "host"),
        ({"host": "a", "groups": ["a b"]}, "groups"),
        ({"host": "a", "labels": {str(n): "" for n in range(33)}}, "labels"),
        ({"host": "a", "labels": {"a b": ""}}, "labels"),
        ({"host": "a", "labels": {"a": "\0"}}, "labels.a"),
        ({"host": 7}, "host"),
        ({}, "host"),
    ]
    for body, path in wrong:
        async with refused(Code.INVALID) as errors:
            await here.call("agent.enrol", body)
        assert errors[0].details["errors"][0]["path"] == path
    assert here.database.psql("SELECT count(*) FROM control.enrolments") == "0"


async def test_groups_and_labels_come_from_the_enrolment(here: Control) -> None:
    async with refused(Code.NOT_FOUND) as errors:
        await here.call("agent.enrol", {"host": "node-1", "groups": ["red"]})
    assert (errors[0].details["what"], errors[0].details["name"]) == ("group", "red")
    await here.call("group.put", {"name": "red"})
    enrolment = await here.call("agent.enrol", {"host": "node-1", "groups": ["red"], "labels": {"rack": "r7"}})
    await here.use(enrolment["token"], "node-1", new_key())
    view = await here.call("agent.get", {"agent": "node-1"})
    assert (view["groups"], view["labels"]) == (["red"], {"rack": "r7"})


async def test_a_caller_bound_to_groups_enrols_for_them_only(here: Control) -> None:
    for name in ("red", "blue"):
        await here.call("group.put", {"name": name})
    red = Actor(name="red admin", role=Role.ADMIN, groups=["red"])
    for groups in (["blue"], ["red", "blue"]):
        async with refused(Code.FORBIDDEN):
            await here.call("agent.enrol", {"host": "node-1", "groups": groups}, red)
    assert (await here.call("agent.enrol", {"host": "node-1"}, red))["groups"] == ["red"]


async def test_only_an_admin_of_all_groups_of_a_host_enrols_it(here: Control) -> None:
    for name in ("red", "blue"):
        await here.call("group.put", {"name": name})
    red = Actor(name="red admin", role=Role.ADMIN, groups=["red"])
    both = Actor(name="admin of both", role=Role.ADMIN, groups=["blue", "red"])
    for host, groups in (("theirs", ["blue"]), ("shared", ["blue", "red"]), ("nobodys", [])):
        agent = await here.join(host, groups=groups)
        for state in ("enrolled", "online", "suspect", "lost"):
            here.database.psql(f"UPDATE control.agents SET state = '{state}' WHERE host = '{host}'")
            async with refused(Code.NOT_FOUND) as errors:
                await here.call("agent.enrol", {"host": host, "groups": ["red"]}, red)
            assert agent.id not in str((errors[0].message, errors[0].details))
        view = await here.call("agent.get", {"agent": host})
        assert (view["id"], view["groups"]) == (agent.id, groups)
    assert (await here.call("agent.enrol", {"host": "shared", "groups": ["red"]}, both))["groups"] == ["red"]
    await here.call("agent.remove", {"agent": "theirs"})
    await here.call("agent.enrol", {"host": "theirs"}, red)


async def test_an_enrolment_of_others_stays_until_it_ends(here: Control) -> None:
    for name in ("red", "blue"):
        await here.call("group.put", {"name": name})
    red, blue = (Actor(name=name, role=Role.ADMIN, groups=[name]) for name in ("red", "blue"))
    token = (await here.call("agent.enrol", {"host": "node-1"}, blue))["token"]
    async with refused(Code.NOT_FOUND):
        await here.call("agent.enrol", {"host": "node-1"}, red)
    agent = await here.use(token, "node-1", new_key())
    await here.call("agent.enrol", {"host": "node-2"}, blue)
    here.database.psql("UPDATE control.enrolments SET expires_at = now() WHERE host = 'node-2'")
    await here.call("agent.enrol", {"host": "node-2"}, red)
    assert (await here.call("agent.get", {"agent": "node-1"}, blue))["id"] == agent.id


async def test_a_host_that_went_to_others_since_is_not_theirs_who_enrolled_it(here: Control) -> None:
    for name in ("red", "blue"):
        await here.call("group.put", {"name": name})
    blue = Actor(name="blue", role=Role.ADMIN, groups=["blue"])
    agent = await here.join("node-1", groups=["blue"])
    token = (await here.call("agent.enrol", {"host": "node-1"}, blue))["token"]
    await here.call("group.bind", {"name": "red", "agent": "node-1"})
    async with refused(Code.NOT_FOUND) as errors:
        await here.use(token, "node-1", new_key())
    assert agent.id not in str(errors[0].details)
    await here.call("group.unbind", {"name": "red", "agent": "node-1"})
    assert (await here.use(token, "node-1", new_key())).id == agent.id
