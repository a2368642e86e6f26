"""The thin path: a test case is taken, its run read, its log tailed."""

import json

from websockets.asyncio.client import connect

from support.api_world import Api


async def test_case_is_taken_and_its_log_is_tailed(api: Api) -> None:
    world = api.world
    body = {"plugin": "linux_system", "method": "run_shell", "host": "local-1", "parameters": {"command": "x"}}
    answer = await api.call("POST", "/v1/testcases", json=body)
    assert answer.status_code == 202, answer.text
    run = world.runs[answer.json()["id"]]
    assert answer.headers["location"] == f"/v1/runs/{run.id}"
    attempt = world.begin(run)
    await world.write(run, attempt, "one\n", "two\n")
    async with connect(f"{api.ws}/v1/runs/{run.id}/logs/tail", additional_headers=api.headers()) as socket:
        first = json.loads(await socket.recv())
        assert (first["type"], first["text"], first["first_line"]) == ("chunk", "one\n", 1)
        await world.write(run, attempt, "three\n")
        await world.finish_attempt(run, attempt)
        await world.finish(run)
        frames = [json.loads(text) async for text in socket]
    assert [f["text"] for f in frames if f["type"] == "chunk"] == ["two\n", "three\n"]
    assert [f["type"] for f in frames] == ["chunk", "chunk", "step", "end"]
    assert frames[-1] == {"type": "end", "result": "passed"}
    assert socket.close_code == 1000


async def test_health_and_readiness(api: Api) -> None:
    assert (await api.http.get("/healthz")).json()["status"] == "ok"
    ready = await api.http.get("/readyz")
    assert (ready.status_code, ready.json()["checks"]) == (200, {"bus": "ok", "database": "ok"})
