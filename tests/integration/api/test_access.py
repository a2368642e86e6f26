"""Who may: tokens, roles, groups, sessions, origins, addresses without authentication."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from proctor_common.service import ConfigurationError
from proctor_common.settings import load_settings
from support.api_world import FIRST_TOKEN, Api, agent
from support.wait import eventually

CASE = {"plugin": "linux_system", "method": "run_shell", "host": "local-1", "parameters": {"command": "x"}}
KEY = "U" + "A" * 55


async def close_code(url: str, headers: dict[str, str]) -> int | None:
    async with asyncio.timeout(10), connect(url, additional_headers=headers) as socket:
        try:
            await socket.recv()
        except ConnectionClosed as error:
            return error.rcvd.code if error.rcvd else None
    return None


WRONG_TOKENS = [None, "Bearer wrong", "Basic abc", f"Bearer {FIRST_TOKEN}x", "Bearer " + "x" * 5000]


async def test_no_or_a_wrong_token_is_401_and_says_so(api: Api) -> None:
    for header in WRONG_TOKENS:
        answer = await api.http.get("/v1/agents", headers={} if header is None else {"Authorization": header})
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "unauthenticated"
        assert "agent.list" not in api.world.asked


BEYOND = [
    ("viewer", "POST", "/v1/testcases"),
    ("viewer", "POST", "/v1/runs"),
    ("viewer", "POST", "/v1/runs/1/cancel"),
    ("viewer", "POST", "/v2.1/testcases"),
    ("runner", "POST", "/v1/tokens"),
    ("runner", "GET", "/v1/tokens"),
    ("runner", "GET", "/v1/audit"),
    ("runner", "POST", "/v1/agents/enrolments"),
    ("runner", "POST", "/v1/agents/local-1/drain"),
    ("runner", "POST", "/v1/agents/local-1/release"),
    ("runner", "DELETE", "/v1/agents/local-1"),
    ("runner", "PUT", "/v1/groups/lab"),
]


async def test_what_is_beyond_a_role_is_403_and_nothing_is_asked(api: Api) -> None:
    tokens: dict[str, str] = {}
    for role, method, path in BEYOND:
        token = tokens.get(role) or tokens.setdefault(role, await api.token(role))
        api.world.asked.clear()
        answer = await api.call(method, path, token, content=b"{ this is not even JSON")
        assert answer.status_code == 403, answer.text
        assert role in answer.json()["message" if path.startswith("/v2.1") else "detail"]
        assert not api.world.asked


async def test_a_revoked_token_is_refused_and_its_websocket_closed(start_api: Any) -> None:
    api: Api = await start_api(token_check=0.3)
    token = await api.token("viewer")
    listed = (await api.call("GET", "/v1/tokens")).json()["items"]
    ref = next(row["id"] for row in listed if row["name"] == "a viewer")
    assert "hash" not in json.dumps(listed)
    run = api.world.add_run()
    async with connect(f"{api.ws}/v1/runs/{run.id}/logs/tail", additional_headers=api.headers(token)) as socket:
        assert (await api.call("DELETE", f"/v1/tokens/{ref}")).status_code == 200
        assert (await api.call("GET", "/v1/agents", token)).status_code == 401
        async with asyncio.timeout(10):
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4401
    assert (await api.call("GET", f"/v1/tokens/{ref}")).status_code == 404


async def test_a_revocation_in_another_process_holds_within_seconds(api: Api) -> None:
    token = await api.token("viewer")
    assert (await api.call("GET", "/v1/agents", token)).status_code == 200
    api.database.psql("DELETE FROM access.tokens WHERE name = 'a viewer'")

    async def refused() -> bool:
        return (await api.call("GET", "/v1/agents", token)).status_code == 401

    await eventually(refused, 6, "the token to be refused")


async def test_an_expired_token_is_refused(api: Api) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    made = await api.call("POST", "/v1/tokens", json={"name": "brief", "role": "viewer", "expires": soon})
    token = made.json()["token"]
    assert (await api.call("GET", "/v1/agents", token)).status_code == 200

    async def refused() -> bool:
        return (await api.call("GET", "/v1/agents", token)).status_code == 401

    await eventually(refused, 6, "the token to expire")
    past = await api.call("POST", "/v1/tokens", json={"name": "x", "role": "viewer", "expires": "2020-01-01T00:00:00Z"})
    assert (past.status_code, past.json()["errors"][0]["path"]) == (422, "expires")


async def test_a_token_for_a_group_that_is_not_there_is_not_made(start_api: Any) -> None:
    api: Api = await start_api(call_timeout=0.6)
    wanted = {"name": "x", "role": "viewer", "groups": ["lab-a", "lba-b"]}
    answer = await api.call("POST", "/v1/tokens", json=wanted)
    assert (answer.status_code, answer.json()["what"], answer.json()["name"]) == (404, "group", "lba-b")
    api.world.silent.add("group.get")
    assert (await api.call("POST", "/v1/tokens", json=wanted)).status_code == 503
    for name in ("a\nb", "\x1b[31m", "\x9b31m"):
        odd = await api.call("POST", "/v1/tokens", json={"name": name, "role": "viewer"})
        assert (odd.status_code, odd.json()["errors"][0]["path"]) == (422, "name")
    assert [t["name"] for t in (await api.call("GET", "/v1/tokens")).json()["items"] if t["name"] != "first"] == []


async def test_groups_of_a_token_go_with_every_question_and_bound_admins_stay_bound(api: Api) -> None:
    bound = await api.token("admin", ["lab-a"])
    await api.call("GET", "/v1/agents", bound)
    assert api.world.asked["agent.list"][-1].actor.groups == ["lab-a"]
    foreign = await api.call("POST", "/v1/tokens", bound, json={"name": "x", "role": "viewer", "groups": ["lab-b"]})
    assert foreign.status_code == 403
    own = await api.call("POST", "/v1/tokens", bound, json={"name": "mine", "role": "viewer"})
    assert own.json()["groups"] == ["lab-a"]
    names = [row["name"] for row in (await api.call("GET", "/v1/tokens", bound)).json()["items"]]
    assert sorted(names) == ["a admin", "mine"]


async def test_a_run_of_another_group_is_404_and_its_tail_4404(api: Api) -> None:
    bound = await api.token("viewer", ["lab-a"])
    theirs, nobodys, mine = (api.world.add_run(group=g) for g in ("lab-b", None, "lab-a"))
    for run, status, code in ((theirs, 404, 4404), (nobodys, 404, 4404)):
        assert (await api.call("GET", f"/v1/runs/{run.id}", bound)).status_code == status
        assert (await api.call("GET", f"/v1/runs/{run.id}/logs", bound)).status_code == status
        for path in ("logs/tail", "events"):
            assert await close_code(f"{api.ws}/v1/runs/{run.id}/{path}", api.headers(bound)) == code
    assert (await api.call("GET", f"/v1/runs/{mine.id}", bound)).status_code == 200


async def test_tokens_are_stored_hashed_and_the_first_only_once(api: Api) -> None:
    token = await api.token("viewer")
    dump = api.database.psql("SELECT * FROM access.tokens")
    assert token not in dump
    assert FIRST_TOKEN not in dump
    assert api.database.psql("SELECT count(*) FROM access.tokens WHERE name = 'first'") == "1"


async def test_a_session_through_its_cookie(api: Api) -> None:
    wrong = await api.http.post("/v1/session", json={"token": "wrong"})
    assert wrong.status_code == 401
    opened = await api.http.post("/v1/session", json={"token": FIRST_TOKEN}, headers={"Origin": api.url})
    assert opened.status_code == 201
    cookie = opened.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    value = opened.cookies["proctor_session"]
    api.http.cookies.clear()
    with_cookie = {"Cookie": f"proctor_session={value}"}
    assert (await api.http.get("/v1/agents", headers=with_cookie)).status_code == 200
    wanted = {"name": "x", "role": "viewer"}
    for origin in (None, "https://evil.example", "null"):
        foreign = {**with_cookie, **({} if origin is None else {"Origin": origin})}
        assert (await api.http.post("/v1/tokens", headers=foreign, json=wanted)).status_code == 403, origin
        code = await close_code(f"{api.ws}/v1/events", foreign)
        assert code == 4403, origin
    own = {**with_cookie, "Origin": api.url}
    assert (await api.http.post("/v1/tokens", headers=own, json=wanted)).status_code == 201
    async with connect(f"{api.ws}/v1/events", additional_headers=own):
        pass
    assert (await api.http.delete("/v1/session", headers=own)).status_code == 204
    assert (await api.http.get("/v1/agents", headers=with_cookie)).status_code == 401
    assert [c.body["action"] for c in api.world.asked["audit.add"]] == ["session.open", "token.create"]


async def test_ten_tries_a_minute_and_address(api: Api) -> None:
    statuses = [(await api.http.post("/v1/session", json={"token": f"guess-{n}"})).status_code for n in range(11)]
    assert statuses == [401] * 10 + [429]
    again = await api.http.post("/v1/session", json={"token": FIRST_TOKEN})
    assert (again.status_code, again.json()["code"]) == (429, "too_many")
    assert int(again.headers["retry-after"]) >= 1


async def test_ten_refused_joins_a_minute_and_address_and_any_number_that_are_taken(api: Api) -> None:
    async def join() -> int:
        return (await api.http.post("/v1/agents/join", json={"token": "t", "public_key": KEY})).status_code

    api.world.agents.append(agent())
    assert [await join() for _ in range(25)] == [200] * 25
    api.world.agents.clear()
    refused = [await join() for _ in range(11)]
    assert (set(refused[:10]) & {200, 429}, refused[10]) == (set(), 429)


async def test_open_paths_ask_for_nothing_and_metrics_for_a_viewer(api: Api) -> None:
    for path in ("/healthz", "/readyz", "/docs", "/openapi.json", "/login", "/docs/assets/swagger-ui.css"):
        assert (await api.http.get(path)).status_code == 200, path
    assert (await api.http.get("/metrics")).status_code == 401
    metrics = await api.call("GET", "/metrics", await api.token("viewer"))
    assert 'proctor_api_requests_total{method="GET",route="/docs/assets/{name}",status="200"} 1.0' in metrics.text


async def test_an_anonymous_viewer_reads_and_does_no_more(start_api: Any) -> None:
    api: Api = await start_api(anonymous="viewer")
    assert (await api.http.get("/v1/agents")).status_code == 200
    answer = await api.http.post("/v1/testcases", json=CASE)
    assert (answer.status_code, "case.submit" in api.world.asked) == (401, False)
    assert (await api.http.get("/v1/agents", headers=api.headers("wrong"))).status_code == 401


async def test_without_authentication_everyone_here_is_admin_and_no_foreign_page(start_api: Any) -> None:
    api: Api = await start_api(no_auth=True)
    assert (await api.http.get("/v1/audit")).status_code == 200
    assert (await api.http.post("/v1/testcases", json=CASE)).status_code == 202
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"}, {"Host": "["}):
        answer = await api.http.get("/v1/agents", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), headers
    assert (await api.http.get("/v1/agents", headers={"Origin": api.url})).status_code == 200
    async with connect(f"{api.ws}/v1/events"):
        pass
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"{api.ws}/v1/events", origin="https://evil.example")  # type: ignore[arg-type]
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"NO_AUTH": "true", "HTTP": "0.0.0.0:8774"}, "loopback"),
        ({"HTTP": "0.0.0.0:8774"}, "allow_plaintext"),
        ({"NATS_URLS": "nats://10.1.1.1:4222"}, "allow_plaintext"),
        ({"HTTP": "nowhere"}, "ADDRESS:PORT"),
        ({"METRICS_HTTP": "0.0.0.0:9100"}, "allow_plaintext"),
        ({"HTPT": "127.0.0.1:1"}, "PROCTOR_API_HTTP"),
        ({"TLS_CERT_FILE": "/x"}, "belong together"),
    ],
)
def test_settings_that_are_unsafe_or_unknown_are_refused_by_name(environ: dict[str, str], words: str) -> None:
    from proctor_api.settings import ApiSettings

    given = {f"PROCTOR_API_{k}": v for k, v in {"DATABASE_URL": "postgresql:///x", **environ}.items()}
    with pytest.raises(ConfigurationError, match=words) as fault:
        load_settings(ApiSettings, environ=given)
    assert fault.value.code == 2


async def test_a_token_holds_so_many_websockets_and_no_more(start_api: Any) -> None:
    api: Api = await start_api(sockets_per_token=2)
    url = f"{api.ws}/v1/events"
    first, second = [await connect(url, additional_headers=api.headers()) for _ in range(2)]
    with pytest.raises(InvalidStatus) as refused:
        await connect(url, additional_headers=api.headers())
    assert refused.value.response.status_code == 429
    await first.close()

    async def room() -> bool:
        try:
            await (await connect(url, additional_headers=api.headers())).close()
        except InvalidStatus:
            return False
        return True

    await eventually(room, 5, "room for another websocket")
    await second.close()


async def test_a_client_frame_over_4_kib_ends_the_websocket(api: Api) -> None:
    async with asyncio.timeout(10), connect(f"{api.ws}/v1/events", additional_headers=api.headers()) as socket:
        await socket.send("x" * 5000)
        await socket.wait_closed()
    assert socket.close_code == 1009
