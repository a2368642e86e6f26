"""Who may do what: every route, operation and websocket, asked as each role, of one's own group, another one and none.

The tables below are what is allowed. A route, operation or websocket that stands in none of them fails.
"""

import asyncio
import itertools
import json
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal

import httpx
import pytest
from pydantic import SecretStr
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from proctor_api.routes import ALL_ROUTERS, SOCKETS
from proctor_api.settings import ApiSettings
from proctor_common.errors import ProctorError
from proctor_common.ids import new_id
from proctor_common.messages.calls import OPERATIONS
from proctor_common.messages.calls.operation import Actor
from proctor_common.states import Role
from support.api_world import FIRST_TOKEN, PLAIN, running
from support.control import Control, SecureNats, new_key
from support.postgres import PostgresServer
from support.processes import free_port

ROUTES = """
runner  agent     POST   /v1/testcases
runner  plan      POST   /v1/runs
viewer  -         GET    /v1/runs
viewer  run       GET    /v1/runs/{run}
viewer  run       GET    /v1/runs/{run}/steps
viewer  run       GET    /v1/runs/{run}/events
viewer  run       GET    /v1/runs/{run}/document
viewer  run       GET    /v1/runs/{run}/logs
viewer  run       GET    /v1/runs/{run}/junit
viewer  run       GET    /v1/runs/{run}/artefacts
viewer  run       GET    /v1/runs/{run}/artefacts/{artefact}
runner  run       POST   /v1/runs/{run}/cancel
runner  run       POST   /v1/runs/{run}/pause
runner  run       POST   /v1/runs/{run}/resume
runner  run       POST   /v1/runs/{run}/rerun
runner  run       POST   /v1/runs/{run}/steps/{step}/approve
runner  run       POST   /v1/runs/{run}/steps/{step}/reject
viewer  -         GET    /v1/results/rejected
runner  -         POST   /v1/results/rejected/retry
runner  -         POST   /v1/results/import
viewer  -         GET    /v1/results/export
viewer  plan      POST   /v1/testplans/validate
viewer  -         GET    /v1/testplans
viewer  plan      GET    /v1/testplans/{name}
runner  taken     PUT    /v1/testplans/{name}
runner  plan      DELETE /v1/testplans/{name}
viewer  -         GET    /v1/schedules
viewer  schedule  GET    /v1/schedules/{name}
runner  taken     PUT    /v1/schedules/{name}
runner  schedule  DELETE /v1/schedules/{name}
viewer  -         GET    /v1/pools
admin   unbound   PUT    /v1/pools/{type}
admin   unbound   POST   /v1/pools/replenish
admin   unbound   POST   /v1/pools/sync
admin   unbound   POST   /v1/pools/reload
viewer  -         GET    /v1/volumes
runner  unbound   DELETE /v1/volumes/{volume}
runner  unbound   POST   /v1/vnfps
viewer  -         GET    /v1/vnfps
viewer  VNF       GET    /v1/vnfps/{vnfp}
runner  VNF       DELETE /v1/vnfps/{vnfp}
viewer  -         GET    /v1/agents
viewer  agent     GET    /v1/agents/{agent}
admin   agent     POST   /v1/agents/{agent}/drain
admin   agent     POST   /v1/agents/{agent}/undrain
admin   agent     POST   /v1/agents/{agent}/release
admin   agent     DELETE /v1/agents/{agent}
admin   agent     POST   /v1/agents/enrolments
anyone  -         POST   /v1/agents/join
viewer  -         GET    /v1/groups
viewer  group     GET    /v1/groups/{group}
admin   bound     PUT    /v1/groups/{group}
admin   group     DELETE /v1/groups/{group}
admin   agent     PUT    /v1/groups/red/agents/{agent}
admin   agent     DELETE /v1/groups/red/agents/{agent}
admin   group     PUT    /v1/groups/{group}/agents/red-0
admin   group     DELETE /v1/groups/{group}/agents/red-0
admin   bound     POST   /v1/tokens
admin   -         GET    /v1/tokens
admin   token     GET    /v1/tokens/{token}
admin   token     DELETE /v1/tokens/{token}
anyone  -         POST   /v1/session
anyone  -         DELETE /v1/session
admin   unbound   GET    /v1/audit
anyone  -         GET    /
anyone  -         GET    /healthz
anyone  -         GET    /readyz
anyone  -         GET    /login
anyone  -         GET    /docs
anyone  -         GET    /openapi.json
anyone  -         GET    /docs/assets/{name}
anyone  -         GET    /docs/testplan.schema.json
anyone  -         GET    /dashboard
anyone  -         GET    /v1/events
anyone  -         GET    /v1/runs/{run}/logs/tail
viewer  -         GET    /metrics
viewer  -         GET    /v1/version
viewer  -         GET    /v1/dashboard/options
viewer  -         GET    /v1/dashboard/trend
viewer  -         GET    /v1/dashboard/matrix
viewer  -         GET    /v1/dashboard/results
viewer  -         GET    /dashboard/
viewer  -         GET    /dashboard/assets/{name}
viewer  -         GET    /v2.1/slaves
viewer  -         GET    /v2.1/slaves/detail
viewer  slave     GET    /v2.1/slaves/{number}
runner  host      POST   /v2.1/testcases
viewer  case      GET    /v2.1/testcases/{number}
runner  host      POST   /v2.1/testplan
viewer  seed      GET    /v2.1/testplan/{number}
"""
"""Role, whose it is, method, path. ``-``: of no group, or a list of one's own · ``taken``: a name that others have is
409 · ``bound``, ``unbound``: 403 for what is not of one's groups, for whoever is bound · else: 404 for others.
"""
TEST_API = ("/api/v1/", "/dashboard/v1/", "/versions")
"""All of it is shared: read by viewers, added to by runners, changed and deleted by those bound to no group."""
OPERATIONS_OF = """
agent     agent.get agent.drain agent.undrain agent.release agent.remove agent.enrol case.submit group.bind group.unbind
run       run.get run.document run.steps run.events run.log_index run.artefacts run.artefact run.cancel run.pause
run       run.resume run.rerun run.approve run.reject
group     group.get group.delete
bound     group.put
plan      plan.get plan.delete plan.validate run.submit
taken     plan.put schedule.put
schedule  schedule.get schedule.delete
VNF       vnfp.get vnfp.delete
secret    agent.join
unbound   vnfp.create volume.delete pool.put pool.replenish pool.sync pool.reload
unbound   audit.list record.pending record.confirm
-         agent.list group.list run.list plan.list plan.schema schedule.list pool.list volume.list vnfp.list
-         audit.add ping
"""
"""The controllers look at groups; roles are the api's to check."""
GROUPS: Mapping[str, str | None] = {"own": "red", "foreign": "blue", "none": None}
Owner = Literal["own", "foreign", "none"]
CALLERS = ("nobody", *(role.value for role in Role), "all")
"""Without a token, bound to red by role, and an admin bound to nothing."""
SERVICE = {"record.pending", "record.confirm"}
"""What the api asks for itself, as an admin."""
MARKS = ("blue-", "free-")
"""In what everything is called that the callers, who are bound to red, must not hear of."""
TWINS = {"host": "agent", "slave": "agent", "case": "run", "seed": "run", "taken": "plan", "bound": "group"}
_numbers = itertools.count(1)


def plan_of(name: str) -> str:
    return json.dumps({"testplan_version": "2026-12-01", "name": name, "steps": {"g": {"gate": {"roles": list(Role)}}}})


class Lab:
    """A whole api and a controller, with things of each group in them."""

    def __init__(self, here: Control, http: httpx.AsyncClient) -> None:
        self.here, self.http = here, http
        self.tokens: dict[str, str | None] = {"nobody": None, "all": FIRST_TOKEN}

    async def prepare(self) -> None:
        for group in ("red", "blue"):
            await self.here.call("group.put", {"name": group})
        await self.here.join("red-0", groups=["red"])
        for role in Role:
            self.tokens[role.value] = (await self.add_token(role.value, ["red"]))["token"]
        for kind, owner in itertools.product(("run", "agent", "plan", "schedule", "token"), GROUPS):
            await self.make(kind, owner)

    async def add_token(self, role: str, groups: list[str] | None, name: str = "x") -> Any:
        body = {"name": name, "role": role, **({} if groups is None else {"groups": groups})}
        return (await self.ask("all", "POST", "/v1/tokens", body)).json()

    async def ask(self, who: str, method: str, path: str, body: Any = None) -> httpx.Response:
        token = self.tokens[who]
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return await self.http.request(method, path, headers=headers, json=body)

    async def make(self, kind: str, owner: str) -> str:
        """A new thing of this kind; how it is called."""
        group = GROUPS[owner]
        name = f"{group or 'free'}-{next(_numbers)}"
        for each in ("red", "blue"):
            # The row before may have deleted it.
            await self.here.call("group.put", {"name": each})
        match TWINS.get(kind, kind):
            case "run":
                body = {"run": new_id(), "plan": plan_of(name), "group": group}
                view = await self.here.call("run.submit", body)
                if kind == "run":
                    return str(view["id"])
                self.here.database.psql(f"UPDATE control.runs SET kind = '{kind}' WHERE id = '{view['id']}'")
                return str(view["number"])
            case "agent":
                agent = await self.here.join(name, groups=[group] if group else [])
                if kind == "slave":
                    return str((await self.here.call("agent.get", {"agent": agent.id}))["number"])
            case "group":
                name = group or "free-nowhere"
                await self.here.call("group.bind", {"name": "red", "agent": "red-0"})
            case "plan":
                await self.here.call("plan.put", {"name": name, "plan": plan_of(name), "group": group})
                await self.here.call("schedule.put", self.schedule(name, group))
            case "schedule":
                await self.here.call("schedule.put", self.schedule(name, group))
            case "token":
                return str((await self.add_token("viewer", [group] if group else None, name))["id"])
            case _:
                return new_id()
        return name

    def schedule(self, name: str, group: str | None) -> dict[str, Any]:
        return {"name": name, "cron": "0 0 1 1 *", "plan": plan_of(name), "group": group}


@pytest.fixture
async def lab(here: Control, secure_nats: SecureNats, postgres: PostgresServer) -> AsyncIterator[Lab]:
    database = postgres.create_database()
    settings = ApiSettings(
        http=f"127.0.0.1:{free_port()}",
        database_url=database.dsn,
        nats_urls=(secure_nats.url,),
        nats_nkey=SecretStr(secure_nats.api.seed),
        first_token=SecretStr(FIRST_TOKEN),
        login_tries=1000,
    )
    async with running(settings), httpx.AsyncClient(base_url=f"http://{settings.http}", verify=PLAIN) as http:
        made = Lab(here, http)
        await made.prepare()
        yield made


def outcome(status: int, text: str) -> str:
    """``refused``: 401 or 403 · ``hidden``: the thing itself is not there · ``taken`` · ``done``: anything else."""
    assert status != 500, text
    if (status == 404 and any(f"no such {noun}: " in text for noun in NOUNS)) or "there is no host " in text:
        return "hidden"
    return {401: "refused", 403: "refused", 409: "taken"}.get(status, "done")


NOUNS = ("run", "agent", "host", "group", "plan", "schedule", "token", "VNF", "slave", "testcase", "testplan")


def expected(scope: str, owner: str, *, bound: bool) -> set[str]:
    """What one whose role suffices is to get. What one may do may be impossible all the same (``taken``)."""
    if scope == "secret":
        return {"refused"}
    if not bound:
        return {"done", "taken", "hidden"} if scope in {"VNF", "unbound"} or owner == "none" else {"done", "taken"}
    if scope == "unbound":
        return {"refused"}
    if scope == "VNF":
        return {"hidden"}
    if scope == "-" or owner == "own":
        return {"done", "taken"} if scope != "taken" else {"done"}
    return {{"taken": "taken", "bound": "refused"}.get(scope, "hidden")}


def rows_of(table: str) -> list[list[str]]:
    return [line.split() for line in table.strip().splitlines()]


def body_of(method: str, path: str, name: str, group: str | None) -> Any:
    """A sound body: the group is asked about behind it."""
    case = {"plugin": "p", "method": "m", "host": name, "parameters": {}}
    bodies: dict[str, Any] = {
        "/v1/testcases": case,
        "/v2.1/testcases": case,
        "/v1/runs": {"plan": name},
        "/v2.1/testplan": {"name": "x", "testplan": {"1": {"Serial-Step-1": {"1": case}}}},
        "/v1/testplans/validate": {"plan": name},
        "/v1/testplans/{name}": {"plan": plan_of(f"{name}-again")},
        "/v1/schedules/{name}": {"cron": "0 1 1 1 *", "plan": plan_of(name)},
        "/v1/pools/{type}": {"target": 1},
        "/v1/vnfps": {"name": "x", "type": "t", "size_gb": 1},
        "/v1/agents/enrolments": {"host": name, "groups": ["red"]},
        "/v1/tokens": {"name": "x", "role": "viewer", "groups": [group or "free-nowhere"]},
    }
    return bodies.get(path) if method in {"POST", "PUT"} else None


def test_every_route_operation_and_websocket_is_in_a_table() -> None:
    routes: list[Any] = [route for router in ALL_ROUTERS for route in router.routes]
    served = {(method, route.path) for route in routes for method in route.methods}
    served = {(method, path) for method, path in served if not path.startswith(TEST_API)}
    general = ROUTES.replace("/red/", "/{group}/").replace("/red-0", "/{agent}")
    listed = {(method, path) for *_, method, path in rows_of(general)}
    assert served == listed
    assert set(OPERATIONS) == {name for _, *names in rows_of(OPERATIONS_OF) for name in names}
    assert [path for path, _ in SOCKETS] == ["/v1/runs/{run}/logs/tail", "/v1/runs/{run}/events", "/v1/events"]


def faults_of(lab_answer: tuple[str, str], wanted: set[str], name: str, *, bound: bool) -> str:
    """Why an answer is not what it should be; empty: it is."""
    found, text = lab_answer
    if bound and any(mark in text.replace(name, "") for mark in MARKS):
        return f"tells of others: {text[:400]}"
    return "" if found in wanted else f"{found}, not {' or '.join(sorted(wanted))}: {text[:400]}"


@pytest.mark.parametrize("owner", GROUPS)
async def test_routes(lab: Lab, owner: Owner) -> None:
    wrong: list[str] = []
    shared: dict[str, str] = {}
    for (role, scope, method, path), who in itertools.product(rows_of(ROUTES), CALLERS):
        if "/red/" in path and who == "all" and owner != "own":
            continue  # It would be one of red's from then on.
        suffices = role == "anyone" or who == "all" or (who != "nobody" and Role(who).covers(Role(role)))
        if (method != "GET" and suffices) or scope not in shared:
            # What may be changed is asked about once.
            shared[scope] = await lab.make(scope, owner)
        name = shared[scope]
        named = dict.fromkeys(("run", "name", "group", "agent", "token", "vnfp", "number"), name)
        asked = path.format_map(named | {"artefact": "0-0-0", "step": "g", "type": "t", "volume": new_id()})
        answer = await lab.ask(who, method, asked, body_of(method, path, name, GROUPS[owner]))
        wanted = expected(scope, owner, bound=who != "all") if suffices else {"refused"}
        if method != "GET" and suffices:
            del shared[scope]
        if (method, path) == ("DELETE", "/v1/groups/{group}"):
            shared.clear()
        found = (outcome(answer.status_code, answer.text), answer.text)
        if fault := faults_of(found, wanted, name, bound=who != "all"):
            wrong.append(f"{who} {method} {asked}: {fault}")
    assert not wrong, "\n".join(wrong)


async def test_the_test_api(lab: Lab) -> None:
    wrong: list[str] = []
    for route in (route for router in ALL_ROUTERS for route in router.routes):
        path: str = route.path  # type: ignore[attr-defined]
        if not path.startswith(TEST_API):
            continue
        asked = re.sub(r"{.*?}", "x", path)
        for method, who in itertools.product(route.methods, CALLERS):  # type: ignore[attr-defined]
            adds = method == "POST" and who in {"runner", "admin"}
            suffices = who == "all" or adds or (method == "GET" and who != "nobody")
            status = (await lab.ask(who, method, asked, None if method == "GET" else {})).status_code
            if (status in {401, 403}) is suffices or status >= 500:
                wrong.append(f"{who} {method} {asked}: {status}")
    assert not wrong, "\n".join(wrong)


def question(operation: str, name: str) -> dict[str, Any]:
    """A sound body of an operation."""
    noun = operation.partition(".")[0]
    special: dict[str, dict[str, Any]] = {
        "agent.enrol": {"host": name, "groups": ["red"]},
        "agent.join": {"token": "x", "public_key": new_key().public},
        "case.submit": {"run": new_id(), "plugin": "p", "method": "m", "host": name},
        "group.bind": {"name": "red", "agent": name},
        "group.unbind": {"name": "red", "agent": name},
        "run.submit": {"run": new_id(), "plan": name},
        "run.list": {},
        "run.artefact": {"run": name, "artefact": "0-0-0"},
        "run.rerun": {"run": name, "new_run": new_id()},
        "run.approve": {"run": name, "step": "g"},
        "run.reject": {"run": name, "step": "g"},
        "plan.validate": {"plan": name},
        "plan.put": {"name": name, "plan": plan_of(f"{name}-again")},
        "schedule.put": {"name": name, "cron": "0 1 1 1 *", "plan": plan_of(name)},
        "pool.put": {"type": "t", "target": 1},
        "vnfp.create": {"id": new_id(), "name": "x", "type": "t", "size_gb": 1},
        "record.confirm": {"ids": []},
        "audit.add": {"action": "x"},
    }
    key = {"plan": "name", "schedule": "name", "group": "name"}.get(noun, noun)
    return special.get(operation, {} if operation.endswith((".list", ".schema")) else {key: name})


@pytest.mark.parametrize("owner", GROUPS)
async def test_operations(lab: Lab, owner: Owner) -> None:
    wrong: list[str] = []
    operations = [(scope, name) for scope, *names in rows_of(OPERATIONS_OF) for name in names]
    for (scope, operation), role, bound in itertools.product(operations, Role, (True, False)):
        if not bound and (operation == "group.bind" or (role is not Role.ADMIN and operation not in SERVICE)):
            continue
        name = await lab.make(scope, owner)
        actor = Actor(name="x", role=role, groups=["red"] if bound else None)
        try:
            answer = await lab.here.call(operation, question(operation, name), actor)
            found = ("done", json.dumps(answer))
        except ProctorError as refused:
            text = f"{refused.message} {refused.details}"
            found = (outcome(refused.status, text), text)
        wanted = expected(scope, owner, bound=bound)
        if not bound and operation in SERVICE and role is not Role.ADMIN:
            wanted = {"refused"}
        if fault := faults_of(found, wanted, name, bound=bound):
            wrong.append(f"{actor.role} {actor.groups} {operation}: {fault}")
    assert not wrong, "\n".join(wrong)


async def test_what_several_groups_have_a_part_in_is_not_for_one_of_them_to_change(lab: Lab) -> None:
    await lab.here.join("red-and-blue", groups=["blue", "red"])
    assert (await lab.ask("admin", "GET", "/v1/agents/red-and-blue")).status_code == 200
    for verb in ("drain", "undrain", "release"):
        assert (await lab.ask("admin", "POST", f"/v1/agents/red-and-blue/{verb}")).status_code == 403
    assert (await lab.ask("admin", "DELETE", "/v1/agents/red-and-blue")).status_code == 403
    enrol = {"host": "red-and-blue", "groups": ["red"]}
    assert (await lab.ask("admin", "POST", "/v1/agents/enrolments", enrol)).status_code == 404


async def test_tokens_of_others_are_not_told_in_pages_either(lab: Lab) -> None:
    others = [(await lab.add_token("viewer", groups, "blue-x"))["id"] for groups in (None, ["blue", "red"], ["blue"])]
    mine = {(await lab.add_token("viewer", ["red"]))["id"] for _ in range(3)}
    for token in others:
        assert (await lab.ask("admin", "GET", f"/v1/tokens/{token}")).status_code == 404
        assert (await lab.ask("admin", "DELETE", f"/v1/tokens/{token}")).status_code == 404
    told: list[str] = []
    path = "/v1/tokens?limit=2"
    while True:
        page = (await lab.ask("admin", "GET", path)).json()
        told += [each["id"] for each in page["items"]]
        if page["next"] is None:
            break
        assert (page["next"], len(page["items"])) == (told[-1], 2)
        path = f"/v1/tokens?limit=2&cursor={page['next']}"
    assert mine <= set(told)
    assert not set(others) & set(told)


@pytest.mark.parametrize("owner", GROUPS)
async def test_websockets(lab: Lab, owner: Owner) -> None:
    wrong: list[str] = []
    run = await lab.make("run", owner)
    for (path, _), who in itertools.product(SOCKETS, CALLERS):
        token = lab.tokens[who]
        url = str(lab.http.base_url).replace("http", "ws", 1).rstrip("/") + path.format(run=run)
        wanted = {4404} if "{run}" in path and who != "all" and owner != "own" else {None, 1000}
        text, code = "", None
        async with connect(url, additional_headers={"Authorization": f"Bearer {token}"} if token else {}) as socket:
            await asyncio.sleep(0.05)
            another = await lab.make("run", owner)
            try:
                async with asyncio.timeout(0.5):
                    async for frame in socket:
                        text += str(frame)
                code = socket.close_code
            except ConnectionClosed as closed:
                code = closed.rcvd.code if closed.rcvd else 1006
            except TimeoutError:
                pass
        if who == "nobody":
            wanted = {4401}
        heard = another in text or (run in text and wanted == {4404})
        if code not in wanted or (heard and who != "all" and owner != "own"):
            wrong.append(f"{who} {path}: {code} {text[:300]}")
        if path == "/v1/events" and who != "nobody" and owner == "own" and not heard:
            wrong.append(f"{who} {path}: nothing of a run of one's own")
    assert not wrong, "\n".join(wrong)
