"""``GET …/logs``: what is there now, by the same reader as the tail."""

import asyncio
import json
from typing import Any

from proctor_common.ids import new_id
from proctor_common.messages.views import StepView
from proctor_common.states import StepState
from support.api_world import FIRST_TOKEN, Api, Attempt, FakeRun
from support.wait import eventually


async def written(api: Api, lines: int, *, finished: bool = True) -> tuple[FakeRun, Attempt]:
    world = api.world
    run = world.add_run()
    attempt = world.begin(run)
    for at in range(1, lines + 1, 3):
        await world.write(run, attempt, "".join(f"line {n}\n" for n in range(at, min(at + 3, lines + 1))))
    if finished:
        await world.finish_attempt(run, attempt)
        await world.finish(run)
    return run, attempt


async def text(api: Api, run: FakeRun, query: str = "") -> str:
    answer = await api.call("GET", f"/v1/runs/{run.id}/logs?{query}")
    assert answer.status_code == 200, answer.text
    return answer.text


async def test_the_whole_log_and_a_running_run_s_so_far(api: Api) -> None:
    run, attempt = await written(api, 10, finished=False)
    expected = "".join(f"line {n}\n" for n in range(1, 11))
    assert await text(api, run) == expected
    await api.world.write(run, attempt, "more\n")
    await api.world.finish_attempt(run, attempt)
    await api.world.finish(run)
    assert await text(api, run) == expected + "more\n"


async def test_ndjson_gives_the_tail_s_frames_and_cursors(api: Api) -> None:
    run, _ = await written(api, 9)
    answer = await api.call("GET", f"/v1/runs/{run.id}/logs?format=ndjson")
    assert answer.headers["content-type"] == "application/x-ndjson"
    frames = [json.loads(line) for line in answer.text.splitlines()]
    assert [f["type"] for f in frames] == ["chunk", "chunk", "chunk", "end"]
    rest = await text(api, run, f"after={frames[0]['cursor']}")
    assert rest == "".join(f"line {n}\n" for n in range(4, 10))


TAILS = [1, 2, 3, 4, 7, 299, 300, 301, 5000]


async def test_the_last_lines(api: Api) -> None:
    run, _ = await written(api, 300)
    for lines in TAILS:
        first = max(1, 301 - lines)
        assert await text(api, run, f"tail={lines}") == "".join(f"line {n}\n" for n in range(first, 301))
        answer = await api.call("GET", f"/v1/runs/{run.id}/logs?format=ndjson&tail={lines}")
        assert json.loads(answer.text.splitlines()[0])["first_line"] == first


async def test_the_last_lines_where_the_last_has_no_end(api: Api) -> None:
    run, attempt = await written(api, 6, finished=False)
    await api.world.write(run, attempt, "open")
    assert await text(api, run, "tail=2") == "line 6\nopen"


async def test_one_step_s_log(api: Api) -> None:
    world = api.world
    run = world.add_run()
    one, two = world.begin(run, "one"), world.begin(run, "two[x]")
    await world.write(run, one, "1\n")
    await world.write(run, two, "2\n")
    assert [await text(api, run, f"step={s}") for s in ("one", "two", "two[x]")] == ["1\n", "2\n", "2\n"]
    assert await text(api, run, "step=two&tail=1") == "2\n"


async def test_an_unknown_step_is_404_and_one_that_waits_has_an_empty_log(api: Api) -> None:
    world = api.world
    run = world.add_run()
    await world.write(run, world.begin(run, "one"), "1\n")
    typo = await api.call("GET", f"/v1/runs/{run.id}/logs?step=oen")
    assert (typo.status_code, typo.json()["what"], typo.json()["name"]) == (404, "step", "oen")
    waiting = StepView(id=new_id(), step="later", instance="x", state=StepState.WAITING, attempt=1)
    world.waiting_steps.append(waiting)
    for name in ("later", "later[x]", waiting.id):
        assert await text(api, run, f"step={name}") == ""


async def test_a_log_is_never_taken_for_a_page(api: Api) -> None:
    run, attempt = await written(api, 1, finished=False)
    await api.world.write(run, attempt, "<script>alert(1)</script>\n")
    answer = await api.call("GET", f"/v1/runs/{run.id}/logs")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]


QUERIES = [("after=nonsense", 400), ("tail=0", 422), ("tail=x", 422), ("format=html", 422), ("tail=1&after=x", 400)]


async def test_wrong_queries(api: Api) -> None:
    run, _ = await written(api, 1)
    for query, status in QUERIES:
        assert (await api.call("GET", f"/v1/runs/{run.id}/logs?{query}")).status_code == status


async def test_a_run_without_a_log(api: Api) -> None:
    run = api.world.add_run()
    assert await text(api, run) == ""
    assert await text(api, run, "tail=5") == ""
    assert (await api.call("GET", "/v1/runs/4711/logs")).status_code == 404


async def test_a_client_that_takes_nothing_is_left_and_the_next_one_served(start_api: Any) -> None:
    api: Api = await start_api(slow_viewer=0.5)
    world = api.world
    run = world.add_run()
    attempt = world.begin(run)
    for _ in range(200):
        await world.store(run, attempt, world.chunk(attempt, b"x" * 60_000))
    reader, writer = await asyncio.open_connection(*api.settings.address, limit=1024)
    head = f"GET /v1/runs/{run.id}/logs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {FIRST_TOKEN}\r\n\r\n"
    writer.write(head.encode())
    await reader.readexactly(100)

    async def left() -> bool:
        counted = 'proctor_api_requests_total{method="GET",route="/v1/runs/{run}/logs",status="200"} 1.0'
        return counted in (await api.call("GET", "/metrics")).text

    await eventually(left, 15, "the stalled answer to be given up")
    writer.close()
    assert len((await api.call("GET", f"/v1/runs/{run.id}/logs")).content) == 200 * 60_000
