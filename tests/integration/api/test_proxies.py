"""The CLI with proxies in the environment, against a real api behind a real proxy."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from proctor_cli.app import run_app
from proctor_cli.options import ApiOptions
from support.api_world import FIRST_TOKEN, Api, FakeRun
from support.proxy import Proxy, proxy_to
from support.wait import eventually

FAR = "http://lab.example:8774"


@pytest.fixture
async def proxy(api: Api, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Proxy]:
    monkeypatch.setattr(ApiOptions, "url", None)
    monkeypatch.setattr(ApiOptions, "token", None)
    monkeypatch.setenv("PROCTOR_TOKEN", FIRST_TOKEN)
    async with proxy_to(api.url) as found:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, found.url)
        yield found


async def proctor(*words: str) -> int:
    async with asyncio.timeout(30):
        return await asyncio.to_thread(run_app, words)


async def finished_run(api: Api) -> FakeRun:
    run = api.world.add_run()
    attempt = api.world.begin(run)
    await api.world.write(run, attempt, "one\ntwo\n")
    await api.world.finish_attempt(run, attempt)
    await api.world.finish(run)
    return run


async def test_loopback_is_reached_without_the_proxy(
    api: Api, proxy: Proxy, capsys: pytest.CaptureFixture[str]
) -> None:
    run = await finished_run(api)
    assert await proctor("--url", api.url, "logs", run.id, "-f") == 0
    assert capsys.readouterr().out == "one\ntwo\n"
    assert proxy.asked == []


async def test_requests_and_websockets_go_the_same_way(
    api: Api, proxy: Proxy, capsys: pytest.CaptureFixture[str]
) -> None:
    run = await finished_run(api)
    assert await proctor("--url", FAR, "logs", run.id, "-f") == 0
    assert capsys.readouterr().out == "one\ntwo\n"
    assert f"GET {FAR}/v1/runs/{run.id}" in proxy.asked
    assert "CONNECT lab.example:8774" in proxy.asked


async def test_what_no_proxy_names_is_reached_without_it(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8,lab.example")
    assert await proctor("--url", FAR, "runs") == 3
    assert "nothing answers at" in capsys.readouterr().err
    assert proxy.asked == []


async def test_behind_a_proxy_that_lets_no_websocket_through_a_log_is_followed_all_the_same(
    api: Api, proxy: Proxy, capsys: pytest.CaptureFixture[str]
) -> None:
    proxy.tunnels = False
    run = api.world.add_run()
    attempt = api.world.begin(run)
    await api.world.write(run, attempt, "one\n")
    following = asyncio.create_task(proctor("--url", FAR, "logs", run.id, "-f"))
    await eventually(lambda: any("/logs?" in line for line in proxy.asked), 20)
    await api.world.write(run, attempt, "two\n")
    await api.world.finish_attempt(run, attempt)
    await api.world.finish(run)
    assert await following == 0
    shown = capsys.readouterr()
    assert shown.out == "one\ntwo\n"
    assert "no websocket gets through to http://lab.example:8774 (HTTP 405)" in shown.err


async def test_a_proxy_of_a_kind_that_is_not_known_is_a_usage_fault(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "socks5://127.0.0.1:1")
    assert await proctor("--url", FAR, "runs") == 2
    assert capsys.readouterr().err.startswith("proctor: http_proxy names no proxy that can be used")
