"""The event websockets: one run's changes to its end, all runs' changes as far as the caller may see them."""

import asyncio
import json
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from proctor_cli.client import Client
from proctor_cli.endpoint import Endpoint
from support.api_world import FIRST_TOKEN, Api
from support.wait import eventually


async def take(socket: ClientConnection, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            frame = json.loads(await socket.recv())
            if frame["type"] != "heartbeat":
                found.append(frame)
    return found


async def test_a_run_s_changes_from_the_first_to_the_end_and_from_a_cursor(api: Api) -> None:
    world = api.world
    run = world.add_run()
    attempt = world.begin(run)
    world.event(run, "running")
    url = f"{api.ws}/v1/runs/{run.number}/events"
    async with connect(url, additional_headers=api.headers()) as socket:
        first = await take(socket, 1)
        assert (first[0]["type"], first[0]["to"], first[0]["run"], first[0]["seq"]) == ("run", "running", run.id, 1)
        await world.announce(run, world.event(run, "dispatched", attempt=attempt))
        await take(socket, 1)
        # The announcement of the second one is lost; the third one shows the hole.
        world.event(run, "running", attempt=attempt)
        await world.finish(run)
        async with asyncio.timeout(20):
            rest = [json.loads(text) async for text in socket]
    assert [(f["type"], f.get("to")) for f in rest] == [("step", "running"), ("run", "finished"), ("end", None)]
    assert rest[-1]["result"] == "passed"
    async with (
        asyncio.timeout(20),
        connect(f"{url}?after={first[0]['cursor']}", additional_headers=api.headers()) as again,
    ):
        frames = [json.loads(text) async for text in again]
    assert [f.get("seq") for f in frames] == [2, 3, 4, None]
    # The connection was lost between the last change and the end.
    async with (
        asyncio.timeout(20),
        connect(f"{url}?after={frames[-2]['cursor']}", additional_headers=api.headers()) as last,
    ):
        assert [json.loads(text) async for text in last] == [{"type": "end", "result": "passed"}]


async def test_a_long_story_is_read_page_by_page_to_its_end(api: Api) -> None:
    run = api.world.add_run()
    for _ in range(250):
        api.world.event(run, "running")

    def read() -> list[int]:
        with Client(Endpoint(api.url, FIRST_TOKEN)) as client:
            return [event["seq"] for event in client.items(f"/v1/runs/{run.id}/events")]

    async with asyncio.timeout(20):
        assert await asyncio.to_thread(read) == [*range(1, 251)]


async def test_all_runs_as_far_as_the_token_may_see(api: Api) -> None:
    world = api.world
    bound = await api.token("viewer", ["lab-a"])
    url = f"{api.ws}/v1/events"
    mine, theirs = world.add_run(group="lab-a"), world.add_run(group="lab-b")
    async with connect(url, additional_headers=api.headers(bound)) as socket:
        await ready(api, socket)
        for _ in range(3):
            await world.announce(theirs, world.event(theirs, "running"))
            await world.announce(mine, world.event(mine, "running"))
        frames = await take(socket, 3)
    assert {frame["run"] for frame in frames} == {mine.id}
    async with connect(f"{url}?after={frames[0]['cursor']}", additional_headers=api.headers(bound)) as socket:
        assert [f["seq"] for f in await take(socket, 2)] == [2, 3]


async def ready(api: Api, socket: ClientConnection) -> None:
    """Wait until the socket is among those that are told."""

    async def counted() -> bool:
        metrics = await api.call("GET", "/metrics")
        return "proctor_api_websockets 1.0" in metrics.text

    await eventually(counted, 5, "the websocket to be counted")


async def test_a_change_that_was_not_announced_comes_with_the_next_one_and_none_twice(api: Api) -> None:
    world = api.world
    run = world.add_run()
    async with connect(f"{api.ws}/v1/events", additional_headers=api.headers()) as socket:
        await ready(api, socket)
        first = world.event(run, "allocating")
        await world.announce(run, first)
        world.event(run, "running")
        await world.announce(run, world.event(run, "finalizing"))
        await world.announce(run, first)
        await world.finish(run)
        assert [f["seq"] for f in await take(socket, 4)] == [1, 2, 3, 4]


async def test_changes_of_which_nothing_was_announced_come_too(start_api: Any) -> None:
    api: Api = await start_api(record_check=0.3)
    world = api.world
    known, silent = world.add_run(), world.add_run()
    async with connect(f"{api.ws}/v1/events", additional_headers=api.headers()) as socket:
        await ready(api, socket)
        await world.announce(known, world.event(known, "running"))
        await take(socket, 1)
        for state in ("queued", "running", "finished"):
            world.event(silent, state)
        assert [(f["run"], f["to"]) for f in await take(socket, 3)] == [
            (silent.id, state) for state in ("queued", "running", "finished")
        ]


async def test_a_bad_cursor_is_4400(api: Api) -> None:
    run = api.world.add_run()
    for path in ("/v1/events", f"/v1/runs/{run.id}/events"):
        async with connect(f"{api.ws}{path}?after=AAAA", additional_headers=api.headers()) as socket:
            async with asyncio.timeout(10):
                await socket.wait_closed()
            assert socket.close_code == 4400
