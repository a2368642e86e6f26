"""Whole plans from their text to the orders that agents get: expressions, matrices, hidden values, nested plans."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_common.bus import Bus
from proctor_common.errors import ProctorError
from proctor_common.ids import new_id
from proctor_common.messages.calls.operation import Actor
from proctor_common.states import Role, StepResult
from proctor_controller.db.session import session
from proctor_controller.engine.engine import Engine
from proctor_controller.engine.settings import EngineSettings
from proctor_controller.engine.submission.planning import prepare_run, request_again
from support.engine import FakeAgent, call, make_runs_engine, until_finished
from support.postgres import Database
from support.wait import eventually

HEAD = 'testplan_version: "2026-12-01"\nname: tried\n'


async def submit(engine: Engine, text: str, **body: Any) -> Any:
    return await call(engine, "run.submit", **{"run": new_id(), "plan": text, "parameters": {}, **body})


async def faults_of(engine: Engine, text: str, **body: Any) -> list[tuple[int | None, str, str]]:
    """Line, path and code of each fault; nothing was started."""
    with pytest.raises(ProctorError) as refused:
        await submit(engine, text, **body)
    assert (await call(engine, "run.list"))["items"] == []
    return [(fault["line"], fault["path"], fault["code"]) for fault in refused.value.details["errors"]]


def dump(database: Database, *tables: str) -> str:
    """All that is stored in the tables, as text."""
    return "\n".join(database.psql(f"SELECT t::text FROM control.{table} t") for table in tables)


async def test_orders_carry_what_expressions_came_to(engine: Engine, agent: FakeAgent) -> None:
    agent.ends = StepResult.PASSED
    plan = f"""{HEAD}parameters:
  image: {{type: string, default: vnf}}
  sites: {{type: list, default: [a]}}
steps:
  build:
    uses: shell.run
    runs_on: {{host: h1}}
    with: {{command: make, args: "IMG=${{{{ params.image }}}} '$${{{{ left }}}}' -j"}}
    env: {{SITE: "at ${{{{ params.sites[0] }}}}"}}
    outputs: {{code: "${{{{ result.exit_code }}}}"}}
  smoke:
    uses: shell.run
    runs_on: {{host: h1}}
    matrix: {{case: [ping, load], site: "${{{{ params.sites }}}}", exclude: [{{case: load, site: b c}}]}}
    with: {{command: "${{{{ matrix.case }}}}", args: "${{{{ matrix.site }}}} ${{{{ steps.build.outputs.code }}}}"}}
    artefacts: ["$${{{{x/*", "${{{{ matrix.case }}}}/${{{{ steps.build.outputs.code }}}}.*", "${{{{ params.sites }}}}"]
"""
    run = await submit(engine, plan, parameters={"image": "an image", "sites": "x, b c"})
    done = await until_finished(engine, run["id"])

    assert (done["result"], done["steps"]) == ("passed", {"passed": 4})
    assert done["parameters"] == {"image": "an image", "sites": ["x", "b c"]}
    first, *others = agent.seen
    assert first.parameters == {"command": "make", "args": ["IMG=an image", "${{ left }}", "-j"]}
    assert first.env == {"SITE": "at x"}
    assert sorted((order.parameters["command"], *order.parameters["args"]) for order in others) == [
        ("load", "x", "0"),
        ("ping", "b c", "0"),
        ("ping", "x", "0"),
    ]
    assert (first.artefacts, others[0].artefacts[1:]) == ([], [f"{others[0].parameters['command']}/0.*", "x", "b c"])
    assert others[0].artefacts[0] == "${{x/*"
    steps = (await call(engine, "run.steps", run=run["id"]))["items"]
    assert [step["instance"] for step in steps] == ["", "case=ping, site=x", "case=ping, site=b c", "case=load, site=x"]


async def test_an_expression_that_fails_ends_its_step_in_error(engine: Engine, agent: FakeAgent) -> None:
    plan = f"""{HEAD}parameters: {{n: {{type: string, default: five}}, no: {{type: list, default: [1]}}}}
steps:
  count: {{uses: shell.run, runs_on: {{host: h1}}, with: {{command: "${{{{ int(params.n) }}}}"}}}}
  words: {{uses: shell.run, runs_on: {{host: h1}}, with: {{command: x, args: "a ${{{{ params.no[1] }}}}"}}}}
  named: {{uses: shell.run, runs_on: {{host: h1}}, with: {{command: x}}, env: {{A: b, C: "${{{{ params.no[1] }}}}"}}}}
  files: {{uses: shell.run, runs_on: {{host: h1}}, with: {{command: x}}, artefacts: [a, "${{{{ params.no }}}}"]}}
  typed: {{uses: shell.run, runs_on: {{host: h1}}, with: {{command: "${{{{ params.no }}}}"}}}}
"""
    run = await submit(engine, plan)
    done = await until_finished(engine, run["id"])
    steps = (await call(engine, "run.steps", run=run["id"]))["items"]
    assert {done["result"], *(step["result"] for step in steps)} == {"error"}
    why = "a list has fewer elements (at 1 of the expression params.no[1])"
    assert [step["reason"] for step in steps] == [
        "with.command: the function int cannot take this value (at 5 of the expression int(params.n))",
        f"with.args[1]: {why}",
        f"env.C: {why}",
        "artefacts[1] must come to text of 1 to 500 characters, without NUL, or to a list of such",
        "the method does not take what was filled in: with.command must be of type string",
    ]
    assert agent.seen == []


async def test_what_a_method_returned_is_there_to_be_undone_beside_the_outputs(
    engine: Engine, agent: FakeAgent
) -> None:
    plan = f"""{HEAD}rollback: always
steps:
  deploy:
    uses: shell.run
    runs_on: {{host: h1}}
    with: {{command: x}}
    outputs: {{name: n}}
    rollback: {{uses: shell.run, with: {{command: "${{{{ self.outputs.name }}}} ${{{{ self.outputs.path }}}}"}}}}
"""
    run = await submit(engine, plan)
    await eventually(lambda: len(agent.seen) == 1, what="the step's order")
    agent.ends = StepResult.PASSED
    await agent.finish(agent.seen[0], output={"path": "/srv/n", "name": "given"})
    assert (await until_finished(engine, run["id"]))["result"] == "passed"
    assert agent.seen[1].parameters["command"] == "n /srv/n"


async def test_hidden_values_are_masked_and_sealed_wherever_they_go(
    engine: Engine, agent: FakeAgent, control_database: Database
) -> None:
    agent.ends = StepResult.PASSED
    plan = f"""{HEAD}parameters:
  token: {{type: string, hidden: true}}
  second: {{type: string, hidden: true, default: written-in-the-plan}}
  pin: {{type: number, hidden: true, default: 48151623}}
steps:
  login:
    uses: shell.run
    runs_on: {{host: h1}}
    with: {{command: "true", password: "${{{{ params.token }}}}"}}
    env: {{TOKEN: "Bearer ${{{{ params.second }}}}", PIN: "${{{{ params.pin }}}}"}}
  again:
    uses: shell.run
    runs_on: {{host: h1}}
    depends_on: [login]
    with: {{command: "x${{{{ run.name }}}}", password: literal-secret}}
"""
    run = await submit(engine, plan, parameters={"token": "given-with-the-run"})
    done = await until_finished(engine, run["id"])

    assert (done["result"], done["parameters"]) == (
        "passed",
        {"token": "***", "second": "***", "pin": "***"},
    )
    login, again = agent.seen
    assert login.parameters["password"] == "given-with-the-run"
    assert login.env == {"TOKEN": "Bearer written-in-the-plan", "PIN": "48151623"}
    assert {"given-with-the-run", "written-in-the-plan", "48151623"} <= set(login.secrets)
    assert (again.parameters["command"], again.parameters["password"]) == ("xtried", "literal-secret")
    assert "literal-secret" in again.secrets
    stored = dump(control_database, "runs", "steps", "nodes", "run_events", "attempts")
    for text in ("given-with-the-run", "written-in-the-plan", "literal-secret", "48151623"):
        assert text not in stored
    async with session(engine.database) as db:
        repeated = await request_again(engine.services, db, run["id"], new_id(), "ann")
        assert repeated is not None
        spec = await prepare_run(engine.services, db, repeated)
    assert (repeated.plan, repeated.parameters["token"]) == (plan, "given-with-the-run")
    assert (spec.rerun_of, spec.parameters["token"], spec.hidden["second"]) == (run["id"], "***", "written-in-the-plan")
    assert "second: {type: string, hidden: true, default: ''***''}" in stored.replace('""', "''")


async def test_hidden_values_stay_where_they_are_masked(engine: Engine, agent: FakeAgent) -> None:
    plan = f"""{HEAD}parameters: {{token: {{type: string, hidden: true}}}}
steps:
  a:
    uses: shell.run
    runs_on: {{host: h1}}
    with: {{command: "echo", args: "${{{{ params.token }}}}"}}
"""
    assert await faults_of(engine, plan, parameters={"token": "x"}) == [(8, "steps.a.with.args", "hidden")]


async def test_literals_are_checked_beside_expressions(engine: Engine, agent: FakeAgent) -> None:
    plan = f"""{HEAD}parameters: {{n: {{type: number, default: 5}}}}
steps:
  a:
    uses: shell.run
    runs_on: {{host: h1}}
    with:
      command: ["${{{{ params.n }}}}"]
      args: "${{{{ params.n }}}} 'open"
  b:
    uses: shell.run
    runs_on: {{host: h1}}
    with:
      command: "${{{{ params.n }}}}"
      name: UPPER
      more: 1
  c:
    uses: shel.run
    runs_on: {{host: h2}}
  d:
    uses: shel.run
    runs_on: {{host: h1}}
"""
    assert await faults_of(engine, plan) == [
        (10, "steps.a.with.args", "invalid"),
        (16, "steps.b.with.name", "invalid"),
        (17, "steps.b.with.more", "unknown_member"),
        (19, "steps.c.uses", "not_found"),
        (20, "steps.c.runs_on", "not_found"),
        (22, "steps.d.uses", "not_found"),
    ]
    with pytest.raises(ProctorError) as refused:
        await submit(engine, plan)
    assert refused.value.details["errors"][-1]["message"].endswith("; did you mean shell.run?")


async def test_what_the_text_gets_wrong_and_what_is_not_there_are_told_at_once(
    engine: Engine, agent: FakeAgent
) -> None:
    """By place, each once: what follows from another fault is none."""
    plan = f"""{HEAD}parametrs: {{n: {{type: number}}}}
secrets: {{KEY: nowhere}}
hosts: {{dut: {{group: lab-z}}, odd: {{hostt: h1}}}}
steps:
  a:
    uses: shel.run
    runs_on: {{host: h9}}
    tiemout: 5
    with: {{comand: x, name: "${{{{ params.n }}}}"}}
  b:
    uses: shell.run
    run_on: {{host: h1}}
    with: {{command: [1], name: "${{{{ parms.n }}}}", args: "'open"}}
    with: {{command: 5}}
  c: {{plan: nobody, depends_on: [d]}}
  d: {{uses: shell.walk, runs_on: each dut, depends_on: [c, e], rollback: {{uses: shell.run, with: {{command: x}}}}}}
  e: {{uses: shell.run, runs_on: odd, with: {{command: x, password: []}}}}
  f: {{usse: shell.run, runs_on: {{host: h1}}, timeout: .inf}}
  g: 5
outputs: {{x: "${{{{ steps.g.outputs.y }}}} ${{{{ steps.e.outputs.z }}}}"}}
"""
    expected = [
        (3, "parametrs", "unknown_member"),
        (4, "secrets.KEY", "not_found"),
        (5, "hosts.dut", "not_found"),
        (5, "hosts.odd.hostt", "unknown_member"),
        (8, "steps.a.uses", "not_found"),
        (9, "steps.a.runs_on", "not_found"),
        (10, "steps.a.tiemout", "unknown_member"),
        (14, "steps.b.run_on", "unknown_member"),
        (15, "steps.b.with.command", "invalid"),
        (15, "steps.b.with.name", "unknown_name"),
        (15, "steps.b.with.args", "invalid"),
        (16, "steps.b.with", "duplicate_key"),
        (17, "steps.c.plan", "not_found"),
        (17, "steps.c.depends_on", "cycle"),
        (18, "steps.d.uses", "not_found"),
        (19, "steps.e.with.password", "invalid"),
        (20, "steps.f.usse", "unknown_member"),
        (20, "steps.f.timeout", "bad_scalar"),
        (21, "steps.g", "invalid"),
        (22, "outputs.x", "unknown_name"),
    ]
    assert await faults_of(engine, plan) == expected
    found = await call(engine, "plan.validate", plan=plan)
    assert [(fault["line"], fault["path"], fault["code"]) for fault in found["errors"]] == expected
    with pytest.raises(ProctorError) as refused:
        await call(engine, "schedule.put", name="nightly", cron="@daily", plan=plan)
    assert len(refused.value.details["errors"]) == len(expected)


async def test_a_place_that_nobody_knows_yet_is_no_fault(engine: Engine, agent: FakeAgent) -> None:
    plan = f"""{HEAD}parameters: {{host: {{type: string}}}}
hosts: {{dut: {{host: "${{{{ params.host }}}}"}}}}
steps:
  a: {{uses: shell.run, runs_on: {{host: "${{{{ params.host }}}}"}}, with: {{command: x, name: UPPER}}}}
  b: {{uses: shell.run, runs_on: dut, with: {{command: x}}, if: host != ""}}
"""
    found = await call(engine, "plan.validate", plan=plan)
    assert [fault["path"] for fault in found["errors"]] == ["steps.a.with.name"]


async def test_a_role_that_nobody_can_fill_is_told_also_where_no_step_runs_on_it(
    engine: Engine, agent: FakeAgent
) -> None:
    plan = f"""{HEAD}parameters: {{open: {{type: string}}}}
hosts:
  a: {{labels: {{os: solaris}}}}
  b: {{group: nobody-in-it}}
  c: {{host: h1, plugin: nope}}
  d: {{host: h1, plugin: shell}}
  e: {{host: "${{{{ params.open }}}}"}}
steps: {{s: {{uses: shell.run, runs_on: {{host: h1}}, with: {{command: "true"}}}}}}
"""
    found = (await call(engine, "plan.validate", plan=plan))["errors"]
    assert [(fault["path"], fault["line"]) for fault in found] == [
        ("hosts.a", 5),
        ("hosts.b", 6),
        ("hosts.c.plugin", 7),
    ]
    assert found[0]["message"] == "there is no host for the role a (label os solaris)"
    assert found[2]["message"] == "no host for the role c (host h1) has the plugin nope"


async def test_the_plugin_of_a_role_is_looked_for_also_where_steps_run_on_it(engine: Engine, agent: FakeAgent) -> None:
    plan = f"""{HEAD}
hosts:
  a: {{host: h1, plugin: nope}}
  b: {{host: h1, plugin: nope}}
steps:
  s: {{uses: shell.run, runs_on: a, with: {{command: "true"}}}}
  t: {{uses: nope.run, runs_on: b}}
"""
    found = (await call(engine, "plan.validate", plan=plan))["errors"]
    assert [(fault["path"], fault["line"]) for fault in found] == [("hosts.a.plugin", 5), ("steps.t.uses", 9)]
    assert found[0]["message"] == "no host for the role a (host h1) has the plugin nope"


GIVES = """UPDATE control.agents SET plugins = jsonb_set(plugins, '{{{plugin}}}', plugins -> 'shell'),
 targets = '{{"{target}": {{"host": "x", "port": 22, "user": "u"}}}}' WHERE host = '{host}'"""


async def test_a_roles_hosts_have_what_it_and_all_its_steps_ask_for(
    engine: Engine, agent: FakeAgent, bus: Bus, control_database: Database
) -> None:
    others = [await FakeAgent(bus, control_database, host=host).join() for host in ("h2", "h3")]
    # h1: shell and net, h2: shell and disk with a target bmc, h3: shell and net with a target bmc.
    for host, plugin, target in (("h1", "net", "oob"), ("h2", "disk", "bmc"), ("h3", "net", "bmc")):
        control_database.psql(GIVES.format(host=host, plugin=plugin, target=target))
    for each in (agent, *others):
        each.ends = StepResult.PASSED
    plan = f"""{HEAD}rollback: always
hosts: {{a: {{plugin: shell}}, b: {{plugin: net}}, c: {{plugin: shell}}}}
steps:
  one: {{uses: disk.run, runs_on: a, with: {{command: x}}}}
  two: {{uses: shell.run, runs_on: b, target: bmc, with: {{command: x}}}}
  three:
    uses: shell.run
    runs_on: c
    with: {{command: x}}
    rollback: {{uses: net.run, with: {{command: x}}, target: oob}}
"""
    run = await submit(engine, plan)
    assert (await until_finished(engine, run["id"]))["result"] == "passed"
    steps = (await call(engine, "run.steps", run=run["id"]))["items"]
    assert [(step["step"], step["host"]) for step in steps] == [
        ("one", "h2"),
        ("two", "h3"),
        ("three", "h1"),
        ("rollback.three", "h1"),
    ]


async def test_each_cell_of_a_matrix_runs_where_it_says(
    engine: Engine, agent: FakeAgent, bus: Bus, control_database: Database
) -> None:
    other = await FakeAgent(bus, control_database, host="h2").join()
    agent.ends = other.ends = StepResult.PASSED
    plan = f"""{HEAD}rollback: always
hosts: {{dut: {{host: h2}}}}
steps:
  spread:
    uses: shell.run
    runs_on: {{host: "${{{{ matrix.at }}}}"}}
    matrix: {{at: [h1, h2], n: [1, 2]}}
    with: {{command: "${{{{ matrix.at }}}} is ${{{{ host }}}}"}}
    rollback: {{uses: shell.run, with: {{command: "undo ${{{{ matrix.at }}}}"}}}}
  roles:
    uses: shell.run
    runs_on: "${{{{ matrix.at }}}}"
    matrix: {{at: [dut, each dut]}}
    if: host == "h2"
    with: {{command: x}}
"""
    run = await submit(engine, plan)
    assert (await until_finished(engine, run["id"]))["result"] == "passed"
    for each in (agent, other):
        commands = sorted(order.parameters["command"] for order in each.seen if order.parameters["command"] != "x")
        assert commands == [f"{each.host} is {each.host}"] * 2 + [f"undo {each.host}"] * 2
    assert [order.parameters["command"] for order in other.seen].count("x") == 2
    found = await call(engine, "plan.validate", plan=plan.replace("[h1, h2]", "[h1, h3]"))
    assert [(fault["path"], fault["message"]) for fault in found["errors"]] == [
        ("steps.spread.runs_on", "there is no host h3")
    ]


async def test_a_role_whose_steps_want_more_than_any_host_has_is_refused(
    engine: Engine, agent: FakeAgent, bus: Bus, control_database: Database
) -> None:
    await FakeAgent(bus, control_database, host="h2").join()
    for host, plugin, target in (("h1", "net", "oob"), ("h2", "disk", "bmc")):
        control_database.psql(GIVES.format(host=host, plugin=plugin, target=target))
    plan = f"""{HEAD}hosts:
  a: {{plugin: net}}
  b: {{plugin: shell, count: 2}}
  c: {{plugin: shell, count: 3}}
  d: {{plugin: shell, exclusive: true}}
  e: {{plugin: shell, exclusive: true, count: 2}}
steps:
  s: {{uses: disk.run, runs_on: a, with: {{command: x}}}}
  t: {{uses: shell.run, runs_on: each b, target: bmc, with: {{command: x}}}}
always: [{{uses: disk.run, runs_on: "b[1]", with: {{command: x}}}}]
"""
    found = (await call(engine, "plan.validate", plan=plan))["errors"]
    assert [(fault["line"], fault["path"], fault["message"]) for fault in found] == [
        (3, "hosts", "the roles together want more hosts than there are: 1 for d alone, 2 for e alone"),
        (
            4,
            "hosts.a",
            "no host for the role a (any) has all that it and its steps ask for: net, disk.run; make two roles of it",
        ),
        (
            5,
            "hosts.b.count",
            "2 are wanted, and there is 1: host for the role b (any) with shell, shell.run, disk.run, target bmc",
        ),
        (6, "hosts.c.count", "3 are wanted, and there are 2: host for the role c (any) with shell"),
    ]
    assert (await call(engine, "run.list"))["items"] == []


async def test_what_does_not_hang_on_a_faulty_member_is_told_beside_it(
    engine: Engine, agent: FakeAgent, control_database: Database
) -> None:
    control_database.psql("INSERT INTO control.pools (type, size_gb, target, file_target) VALUES ('igw', 1, 0, 0)")
    plan = f"""{HEAD}
hosts:
  a: {{group: nobody-in-it, count: none}}
  b: {{host: h1, plugin: nope, exclusive: 7}}
  c: {{host: h1, count: none}}
volumes: {{v: {{type: large, count: none}}}}
steps:
  s: {{uses: shell.run, runs_on: a, with: {{command: "true"}}}}
  t: {{uses: shell.nope, runs_on: c}}
  u: {{uses: nope.run, runs_on: {{host: h1}}, gate: {{roles: [boss]}}}}
"""
    found = (await call(engine, "plan.validate", plan=plan))["errors"]
    assert [fault["path"] for fault in found] == [
        "hosts.a", "hosts.a.count", "hosts.b.plugin", "hosts.b.exclusive", "hosts.c.count", "volumes.v.type",
        "volumes.v.count", "steps.t.uses", "steps.u.uses", "steps.u.gate", "steps.u.gate.roles[0]",
    ]  # fmt: skip


async def test_a_type_of_volume_that_is_not_there_is_told_with_its_place(
    engine: Engine, agent: FakeAgent, control_database: Database
) -> None:
    plan = f"""{HEAD}parameters: {{kind: {{type: string, default: nope}}, open: {{type: string}}}}
volumes:
  a: {{type: igw}}
  b: {{type: "${{{{ params.kind }}}}"}}
  c: {{count: 0}}
  d: {{type: "${{{{ params.open }}}}"}}
steps: {{s: {{uses: shell.run, runs_on: {{host: h1}}, with: {{command: "true"}}}}}}
"""
    control_database.psql("INSERT INTO control.pools (type, size_gb, target, file_target) VALUES ('igw', 1, 0, 0)")
    found = (await call(engine, "plan.validate", plan=plan))["errors"]
    assert [fault["path"] for fault in found] == ["volumes.b.type", "volumes.c", "volumes.c.count"], found
    assert (found[0]["line"], found[0]["message"]) == (6, "there is no type of volume 'nope'; there is igw")


async def test_a_plan_runs_another_one_with_what_it_gives_it(
    engine: Engine, agent: FakeAgent, control_database: Database
) -> None:
    agent.ends = StepResult.PASSED
    child = f"""{HEAD}parameters: {{word: {{type: string}}, key: {{type: string, hidden: true}}}}
steps:
  say:
    uses: shell.run
    runs_on: {{host: h1}}
    with: {{command: "${{{{ params.word }}}}", password: "${{{{ params.key }}}}"}}
outputs: {{said: "${{{{ params.word }}}}!"}}
"""
    await call(engine, "plan.put", name="child", plan=child)
    parent = f"""{HEAD}steps:
  soak: {{plan: child, with: {{word: hello, key: given-to-the-child}}}}
  then: {{uses: shell.run, runs_on: {{host: h1}}, with: {{command: "${{{{ steps.soak.outputs.said }}}}"}}}}
"""
    run = await submit(engine, parent)
    await call(engine, "plan.delete", name="child")

    async def begun() -> Any:
        found = [each for each in (await call(engine, "run.list"))["items"] if each["parent"] == run["id"]]
        assert len(found) == 1
        return found[0]

    nested = await eventually(begun, 10, "the nested run")
    assert (nested["plan"], nested["parameters"]) == ("child", {"word": "hello", "key": "***"})
    assert (await until_finished(engine, nested["id"]))["result"] == "passed"
    assert agent.seen[0].parameters == {"command": "hello", "password": "given-to-the-child"}
    assert "given-to-the-child" not in dump(control_database, "runs", "steps", "nodes", "run_events", "attempts")


async def test_what_is_wrong_with_nested_plans(engine: Engine, agent: FakeAgent) -> None:
    child = f"""{HEAD}parameters: {{word: {{type: string}}, n: {{type: number, default: 1}}}}
steps: {{a: {{uses: shell.run, runs_on: {{host: h1}}, with: {{command: x}}}}}}
"""
    await call(engine, "plan.put", name="child", plan=child)
    parent = f"""{HEAD}steps:
  a: {{plan: nobody}}
  b: {{plan: child}}
  c: {{plan: child@1, with: {{word: x, n: many, wird: y}}}}
  d: {{plan: child@2, with: {{word: x}}}}
"""
    assert await faults_of(engine, parent) == [
        (4, "steps.a.plan", "not_found"),
        (5, "steps.b.with", "missing"),
        (6, "steps.c.with.n", "constraint"),
        (6, "steps.c.with.wird", "unknown_member"),
        (7, "steps.d.plan", "not_found"),
    ]
    bound = Actor(name="b", role=Role.RUNNER, groups=["lab-a"])
    found = await call(engine, "plan.validate", actor=bound, plan=f"{HEAD}steps: {{a: {{plan: child}}}}\n")
    assert [fault["path"] for fault in found["errors"]] == ["steps.a.plan"]


async def test_what_a_nested_plan_calls_is_checked_when_the_outer_one_is_submitted(
    engine: Engine, agent: FakeAgent
) -> None:
    """With the parameters that it is given, as far as they are known, and down to the last one."""
    leaf = f"""{HEAD}parameters: {{host: {{type: string, default: gone}}, plan: {{type: string, default: other}}}}
steps:
  a: {{uses: shell.run, runs_on: {{host: "${{{{ params.host }}}}"}}, with: {{command: x}}}}
"""
    await call(engine, "plan.put", name="leaf", plan=leaf)
    middle = f"""{HEAD}parameters: {{host: {{type: string, default: h1}}}}
steps:
  good: {{plan: leaf, with: {{host: "${{{{ params.host }}}}"}}}}
  bad: {{uses: shell.walk, runs_on: {{host: h1}}}}
"""
    await call(engine, "plan.put", name="middle", plan=middle)
    loop = f"""{HEAD}parameters: {{plan: {{type: string, default: leaf}}}}
steps: {{again: {{plan: "${{{{ params.plan }}}}", with: {{plan: loop}}}}}}
"""
    await call(engine, "plan.put", name="loop", plan=loop)
    parent = f"""{HEAD}parameters: {{host: {{type: string}}}}
steps:
  a: {{plan: leaf, with: {{host: h1}}}}
  b: {{plan: leaf}}
  c: {{plan: leaf, with: {{host: "${{{{ params.host }}}}"}}}}
  d: {{plan: middle}}
  e: {{plan: loop}}
  f: {{plan: loop, with: {{plan: loop}}}}
"""
    with pytest.raises(ProctorError) as refused:
        await submit(engine, parent, parameters={"host": "h1"})
    found = [(fault["line"], fault["path"], fault["message"]) for fault in refused.value.details["errors"]]
    assert found == [
        (6, "steps.b.plan", "the plan leaf@1 cannot run here: steps.a.runs_on (line 5): there is no host gone"),
        (
            8,
            "steps.d.plan",
            "the plan middle@1 cannot run here: steps.bad.uses (line 6): plugin shell has no method walk; did you mean"
            " shell.run?",
        ),
        (9, "steps.e.plan", found[2][2]),
        (10, "steps.f.plan", found[3][2]),
    ]
    assert "there is no host gone" in found[2][2]
    assert "nests itself: loop -> loop" in found[3][2]
    assert (await call(engine, "run.list"))["items"] == []


async def test_outputs_that_a_nested_plan_does_not_have_are_told(engine: Engine, agent: FakeAgent) -> None:
    leaf = f"""{HEAD}steps: {{a: {{uses: shell.run, runs_on: {{host: h1}}, with: {{command: x}}}}}}
outputs: {{word: "${{{{ steps.a.result.exit_code }}}}"}}
"""
    await call(engine, "plan.put", name="leaf", plan=leaf)
    parent = f"""{HEAD}steps:
  nest: {{plan: leaf, outputs: {{own: 1}}}}
  a: {{uses: shell.run, runs_on: {{host: h1}}, with: {{command: "${{{{ steps.nest.outputs.wrod }}}}"}}}}
  b: {{uses: shell.run, runs_on: {{host: h1}}, with: {{command: "${{{{ steps.nest.outputs.word }}}}"}}}}
outputs: {{x: "${{{{ steps.nest.outputs.own }}}}", y: "${{{{ steps.nest.outputs.other }}}}"}}
"""
    assert await faults_of(engine, parent) == [
        (5, "steps.a.with.command", "unknown_name"),
        (7, "outputs.y", "unknown_name"),
    ]


async def test_a_plan_that_nests_itself_is_refused(engine: Engine) -> None:
    def nesting(name: str) -> str:
        return f"{HEAD}steps: {{a: {{plan: {name}}}}}\n"

    with pytest.raises(ProctorError, match="nests itself: mirror -> mirror"):
        await call(engine, "plan.put", name="mirror", plan=nesting("mirror"))
    await call(engine, "plan.put", name="left", plan=nesting("right"))
    with pytest.raises(ProctorError, match="nests itself: right -> left -> right"):
        await call(engine, "plan.put", name="right", plan=nesting("left"))
    leaf = f"{HEAD}steps: {{a: {{uses: shell.run, runs_on: {{host: h1}}}}}}\n"
    for level in range(6):
        await call(engine, "plan.put", name=f"p{level}", plan=nesting(f"p{level - 1}") if level else leaf)
    with pytest.raises(ProctorError, match="nested more than 5 deep"):
        await call(engine, "plan.put", name="p6", plan=nesting("p5"))


async def test_a_legacy_plan_runs_in_its_order(engine: Engine, agent: FakeAgent) -> None:
    agent.ends = StepResult.FAILED

    def child(word: str) -> dict[str, Any]:
        host = {"get_param": "Data:STA1"}
        return {"plugin": "shell", "host": host, "method": "run", "parameters": {"command": word, "args": "${{ x }}"}}

    plan = {
        "name": "the first one",
        "environment": {"Data": {"STA1": "h1"}, "unused": 1},
        "testplan": {
            "2": {"Serial-Step-1": {"1": child("d")}, "Serial-Step-2": {"1": child("e")}},
            "1": {"Parallel-Step-1": {"DESCRIPTION": "both", "1": child("a"), "2": child("b")}, "x": {"1": child("c")}},
        },
    }
    run = await call(engine, "run.submit", run=new_id(), plan=plan, parameters={})
    done = await until_finished(engine, run["id"])
    assert (done["kind"], done["name"], done["steps"]) == ("seed", "the first one", {"failed": 5})
    words = [order.parameters["command"] for order in agent.seen]
    assert (sorted(words[:2]), words[2:]) == (["a", "b"], ["c", "d", "e"])
    assert agent.seen[0].parameters["args"] == ["${{", "x", "}}"]
    steps = (await call(engine, "run.steps", run=run["id"]))["items"]
    assert [step["step"] for step in steps] == [
        "case-1-step-1", "case-1-step-2", "case-1-step-3", "case-2-step-1", "case-2-step-2",
    ]  # fmt: skip


async def test_what_is_wrong_with_a_legacy_plan(engine: Engine, agent: FakeAgent) -> None:
    plan = """name: x
environment: {Data: {STA1: h1}}
testplan:
  "1":
    Serial-Step-1:
      "1": {plugin: shell, host: {get_param: "Data:STA2"}, method: run}
      "2": {plugin: shell, host: h1}
  one: {}
"""
    assert await faults_of(engine, plan) == [
        (6, "testplan.1.Serial-Step-1.1.parameters", "missing"),
        (6, "testplan.1.Serial-Step-1.1.host.get_param", "unknown_name"),
        (7, "testplan.1.Serial-Step-1.2", "missing"),
        (8, "testplan.one", "invalid"),
    ]
    plan = """name: x
testplan:
  "1":
    Serial-Step-1:
      "1": {plugin: shell, host: nobody, method: run, parameters: {command: x}}
      "2": {plugin: shell, host: h1, method: walk, parameters: {command: x}}
      "3": {plugin: shell, host: h1, method: run, parameters: {comand: x}}
"""
    assert [(path, code) for _, path, code in await faults_of(engine, plan)] == [
        ("testplan.1.Serial-Step-1.1.host", "not_found"),
        ("testplan.1.Serial-Step-1.2.method", "not_found"),
        ("testplan.1.Serial-Step-1.3.parameters.comand", "unknown_member"),
    ]


async def test_stored_secrets_reach_the_agent_and_the_webhook(
    rows: AsyncEngine, bus: Bus, agent: FakeAgent, control_database: Database, tmp_path: Path
) -> None:
    (tmp_path / "lab-key").write_text("from-a-file\n")
    plan = f"""{HEAD}secrets: {{KEY: lab-key}}
webhook: {{url: "https://ci.example/done", secret: "${{{{ secrets.KEY }}}}"}}
steps:
  login:
    uses: shell.run
    runs_on: {{host: h1}}
    env: {{KEY: "${{{{ secrets.KEY }}}}"}}
    with: {{command: "true", password: "x-${{{{ secrets.KEY }}}}"}}
"""
    engine = make_runs_engine(rows, bus, EngineSettings(secrets_dir=tmp_path))
    try:
        run = await submit(engine, plan)

        async def ordered() -> Any:
            assert agent.seen
            return agent.seen[0]

        order = await eventually(ordered, 10, "the order")
        assert (order.env, order.parameters["password"]) == ({"KEY": "from-a-file"}, "x-from-a-file")
        assert "from-a-file" in order.secrets
        assert "from-a-file" not in dump(control_database, "runs", "steps", "nodes", "attempts")
        (sealed,) = [row for row in control_database.psql("SELECT sealed FROM control.runs").splitlines() if row]
        assert engine.services.seal.open(sealed.strip(), run["id"]) == {"webhook_secret": "from-a-file"}
        with pytest.raises(ProctorError, match="there is no secret gone"):
            await submit(engine, plan.replace("lab-key", "gone"))
    finally:
        await engine.close()
