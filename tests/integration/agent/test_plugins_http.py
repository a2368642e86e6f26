"""The plugin ``http`` against real HTTP servers, called as the agent's core calls it."""

import asyncio
import gzip
import json
import ssl
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from proctor_agent.loader import load
from proctor_agent.plugin_host import PluginWorkbench
from proctor_cli.init.certificates import new_ca, new_key, new_server_certificate
from proctor_common.states import StepResult
from proctor_controller.domain.documents.json_schema import find_faults
from support.bench import Bench
from support.processes import free_port
from support.ssh_log import RecordedAttempt, targets_for
from support.sshd import SshTarget
from support.wait import eventually
from support.web import Received, Reply, WebServer, web_server


@pytest.fixture
async def bench(loopback: SshTarget, tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(targets_for(loopback), tmp_path)
    yield made
    await made.workbench.close()


@pytest.fixture
def web() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


def as_json(value: Any, status: int = 200) -> Reply:
    return Reply(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


async def test_a_json_answer_is_the_output(bench: Bench, web: WebServer) -> None:
    web.answer = lambda request: as_json({"state": "up", "ports": [1, 2]})
    outcome, attempt = await bench.call("http.get", {"url": f"{web.url}/health?x=1", "headers": {"X-Try": "a b"}})
    assert outcome.result is StepResult.PASSED, outcome
    out = outcome.output
    assert (out["status"], out["reason"], out["json"]) == (200, "OK", {"state": "up", "ports": [1, 2]})
    assert out["headers"]["content-type"] == "application/json"
    assert json.loads(out["body"]) == out["json"]
    assert (out["truncated"], out["url"]) == (False, f"{web.url}/health?x=1")
    (seen,) = web.seen
    assert (seen.method, seen.path, seen.headers["x-try"]) == ("GET", "/health?x=1", "a b")
    assert b"GET http://127.0.0.1" in attempt.system and b"-> 200 OK" in attempt.system


@pytest.mark.parametrize("verb", ["post", "put", "patch", "delete", "head"])
async def test_every_method_is_sent_as_it_is_called(bench: Bench, web: WebServer, verb: str) -> None:
    body = {} if verb in {"delete", "head"} else {"body": {"é": 1}}
    outcome, _ = await bench.call(f"http.{verb}", {"url": web.url, **body})
    assert outcome.result is StepResult.PASSED
    assert web.seen[0].method == verb.upper()
    if body:
        assert web.seen[0].json() == {"é": 1}
        assert web.seen[0].headers["content-type"] == "application/json"


async def test_request_takes_any_method_and_a_text_is_sent_as_it_is(bench: Bench, web: WebServer) -> None:
    outcome, _ = await bench.call("http.request", {"method": "OPTIONS", "url": web.url, "body": '{"a":  1}'})
    assert outcome.result is StepResult.PASSED
    assert (web.seen[0].method, web.seen[0].body) == ("OPTIONS", b'{"a":  1}')
    assert web.seen[0].headers["content-type"].startswith("text/plain")


async def test_the_status_decides(bench: Bench, web: WebServer) -> None:
    web.answer = lambda request: Reply(503, b"not yet\x1b[31m")
    outcome, attempt = await bench.call("http.get", {"url": web.url})
    assert outcome.result is StepResult.FAILED
    assert outcome.reason == "status 503, expected 200 to 299"
    assert outcome.output["status"] == 503
    assert b"not yet" in attempt.system
    for expected in (503, [200, 503]):
        outcome, _ = await bench.call("http.get", {"url": web.url, "expected": expected})
        assert outcome.result is StepResult.PASSED
    web.answer = lambda request: Reply(200)
    outcome, _ = await bench.call("http.get", {"url": web.url, "expected": [404, 410]})
    assert outcome.reason == "status 200, expected 404 or 410"


async def test_secrets_are_sent_and_marked_as_secret(bench: Bench, web: WebServer) -> None:
    schema = bench.workbench.plugins["http"].methods["post"].parameters["properties"]
    assert {name for name, part in schema.items() if part.get("x-secret")} == {
        "secret_headers", "token", "secret_body"
    }  # fmt: skip
    parameters = {"url": web.url, "secret_headers": {"X-Key": "k1"}, "token": "t1", "secret_body": '{"password": "p"}'}
    outcome, attempt = await bench.call("http.post", parameters)
    assert outcome.result is StepResult.PASSED
    headers = web.seen[0].headers
    assert (headers["x-key"], headers["authorization"]) == ("k1", "Bearer t1")
    assert web.seen[0].json() == {"password": "p"}
    assert b"k1" not in attempt.system and b"t1" not in attempt.system


async def test_redirects_stay_on_the_host_unless_asked(bench: Bench, web: WebServer) -> None:
    def answer(request: Received) -> Reply:
        here = {"/a": "/b", "/loop": "/loop", "/away": f"http://localhost:{web.port}/there"}.get(request.path)
        return Reply(302, headers={"Location": here}) if here else Reply(200, request.path.encode())

    web.answer = answer
    outcome, _ = await bench.call("http.get", {"url": f"{web.url}/a"})
    assert (outcome.output["body"], outcome.output["url"]) == ("/b", f"{web.url}/b")

    outcome, _ = await bench.call("http.get", {"url": f"{web.url}/a", "redirects": "none"})
    assert outcome.reason.startswith("status 302")
    outcome, _ = await bench.call("http.get", {"url": f"{web.url}/away", "expected": 302})
    assert outcome.output["headers"]["location"] == f"http://localhost:{web.port}/there"

    web.seen.clear()
    outcome, _ = await bench.call("http.get", {"url": f"{web.url}/away"})
    assert outcome.error is not None
    assert outcome.error.kind == "redirect_to_other_host"
    assert "redirects to any" in outcome.error.message
    assert [request.path for request in web.seen] == ["/away"]

    asked = {"url": f"{web.url}/away", "redirects": "any", "secret_headers": {"X-Key": "k"}, "token": "t"}
    outcome, _ = await bench.call("http.get", asked)
    assert outcome.output["body"] == "/there"
    assert web.seen[-2].headers["x-key"] == "k"
    assert not {"x-key", "authorization"} & set(web.seen[-1].headers)

    outcome, _ = await bench.call("http.get", {"url": f"{web.url}/loop"})
    assert outcome.error is not None and outcome.error.kind == "too_many_redirects"


async def test_a_server_that_redirects_does_not_say_who_we_are(bench: Bench, web: WebServer) -> None:
    def answer(request: Received) -> Reply:
        named = web.url.replace("//", "//someone:pass-word@")
        return Reply(302, headers={"Location": f"{named}/b"}) if request.path == "/a" else Reply(200)

    web.answer = answer
    outcome, attempt = await bench.call("http.post", {"url": f"{web.url}/a", "token": "t", "body": "x"})
    assert outcome.output["url"] == f"{web.url}/b"
    assert (web.seen[-1].method, web.seen[-1].headers["authorization"]) == ("GET", "Bearer t")
    assert b"pass-word" not in attempt.system
    assert f"GET {web.url}/b -> 200 OK".encode() in attempt.system and b"after 1 redirect\n" in attempt.system


async def test_a_long_answer_is_cut_and_says_so(bench: Bench, web: WebServer) -> None:
    web.answer = lambda request: Reply(200, b"x" * 5_000_000)
    outcome, _ = await bench.call("http.get", {"url": web.url})
    assert outcome.output["truncated"] is True
    assert 30_000 < len(outcome.output["body"]) <= 64 * 1024
    assert len(json.dumps(outcome.output)) <= 64 * 1024

    web.answer = lambda request: as_json(["\u0001" * 9000])
    outcome, _ = await bench.call("http.get", {"url": web.url})
    assert outcome.output["json"] is not None
    assert len(json.dumps(outcome.output)) <= 64 * 1024


@pytest.mark.parametrize(("encoding", "unpacked"), [("gzip", True), ("gzip, gzip", False)])
async def test_a_packed_answer_is_never_larger_than_what_is_kept(
    bench: Bench, web: WebServer, encoding: str, unpacked: bool
) -> None:
    bomb = gzip.compress(b"0" * 40_000_000, 6)
    bomb = bomb if unpacked else gzip.compress(bomb)
    web.answer = lambda request: Reply(200, bomb, {"Content-Encoding": encoding})
    tracemalloc.start()
    try:
        outcome, _ = await bench.call("http.get", {"url": web.url})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert outcome.result is StepResult.PASSED, outcome
    assert peak < 8_000_000
    assert outcome.output["truncated"] is unpacked
    assert outcome.output["body"].startswith("0000") is unpacked


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", gzip.compress(b'{"a": 1}', mtime=0)),
        ("X-GZIP", gzip.compress(b'{"a": 1}', mtime=0)),
        ("deflate", zlib.compress(b'{"a": 1}')),
        ("deflate", zlib.compress(b'{"a": 1}')[2:-4]),
        ("identity", b'{"a": 1}'),
    ],
)
async def test_a_packed_answer_is_unpacked(bench: Bench, web: WebServer, encoding: str, packed: bytes) -> None:
    web.answer = lambda request: Reply(200, packed, {"Content-Encoding": encoding})
    outcome, _ = await bench.call("http.get", {"url": web.url})
    assert outcome.output["json"] == {"a": 1}
    web.answer = lambda request: Reply(200, b"no gzip", {"Content-Encoding": "gzip"})
    outcome, _ = await bench.call("http.get", {"url": web.url})
    assert outcome.error is not None and outcome.error.kind == "http_failed"


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b"[" * 3000, b"NaN", b""])
async def test_what_is_no_json_is_text(bench: Bench, web: WebServer, body: bytes) -> None:
    web.answer = lambda request: Reply(200, body, {"Content-Type": "application/json; charset=no-such"})
    outcome, _ = await bench.call("http.get", {"url": web.url})
    assert outcome.result is StepResult.PASSED, outcome
    assert outcome.output["json"] is None


async def test_a_server_that_hangs_or_drops_or_is_not_there(bench: Bench, web: WebServer) -> None:
    web.answer = lambda request: Reply(hang=30)
    outcome, _ = await bench.call("http.get", {"url": web.url, "timeout": 0.2})
    assert outcome.error is not None and outcome.error.kind == "timeout"

    web.answer = lambda request: Reply(drop=True)
    outcome, _ = await bench.call("http.get", {"url": web.url})
    assert outcome.error is not None and outcome.error.kind == "http_failed"

    port = free_port()
    outcome, _ = await bench.call("http.get", {"url": f"http://127.0.0.1:{port}/?key=k"})
    assert outcome.error is not None and outcome.error.kind == "connect_failed"
    assert f"cannot connect to http://127.0.0.1:{port}: Connection refused" in outcome.reason
    outcome, _ = await bench.call("http.get", {"url": "http://no-such-host.invalid/"})
    assert outcome.error is not None and outcome.error.kind == "connect_failed"


async def test_a_stopped_attempt_gives_the_request_up(bench: Bench, web: WebServer) -> None:
    web.answer = lambda request: Reply(hang=30)
    attempt = bench.attempt()
    call = asyncio.create_task(bench.call("http.get", {"url": web.url}, attempt))
    await eventually(lambda: web.seen, 10, "the request")
    attempt.stopping.set()
    outcome, _ = await asyncio.wait_for(call, 5)
    assert outcome.error is not None and outcome.error.kind == "stopping"


async def test_addresses_that_the_agent_refuses(bench: Bench, loopback: SshTarget, tmp_path: Path) -> None:
    for host in ("169.254.169.254", "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]", "2852039166"):
        url = f"http://{host}/latest"
        outcome, _ = await bench.call("http.get", {"url": url})
        assert outcome.error is not None and outcome.error.kind == "address_refused", outcome
    loaded = load(["http"], {"http": {"refuse": ["127.0.0.0/8", "::1"]}})
    workbench = PluginWorkbench(loaded, targets_for(loopback))
    outcome = await workbench.call(RecordedAttempt(tmp_path), "http", "get", {"url": "http://localhost:1/"})
    assert outcome.error is not None and outcome.error.kind == "address_refused"
    assert load(["http"], {"http": {"refuse": ["everything"]}}).errors.keys() == {"http"}


def test_bad_parameters_are_refused_before_anything_is_sent(bench: Bench) -> None:
    for given, said in (
        ({"url": "ftp://a/"}, "http://host"),
        ({"url": "http://u:p@a/"}, "no password"),
        ({"url": "http://a/ b"}, "no blank"),
        ({"url": "http://a:99999/"}, "not a URL"),
        ({"url": "http://a/", "headers": {"a b": "x"}}, "headers"),
        ({"url": "http://a/", "headers": {"a": "x\r\nInjected: y"}}, "headers"),
        ({"url": "http://a/", "headers": {"Content-Length": "1"}}, "worked out from the body"),
        ({"url": "http://a/", "secret_headers": {"transfer-encoding": "chunked"}}, "worked out from the body"),
        ({"url": "http://a/", "expected": 99}, "expected"),
        ({"url": "http://a/", "timeout": 0}, "timeout"),
        ({"url": "http://a/", "redirects": "maybe"}, "redirects"),
        ({"url": "http://a/", "verify": False}, "verify"),
    ):
        told = bench.workbench.check("http", "get", None, given)
        assert said in told and "Value error" not in told, given


def test_a_url_is_checked_before_an_agent_has_it(bench: Bench) -> None:
    schema = bench.workbench.plugins["http"].methods["get"].parameters
    for url in ("http://a", "HTTPS://A:1/b?c=d#e", "http://[::1]:8/", "http://a/@b", "http://ä.example/ö"):
        assert find_faults(schema, {"url": url}, "with") == []
    for url in ("ftp://a/", "http://u:p@a/", "http://u@a", "http://a/ b", "http://a/\r\nX: y", "http:///a", "a"):
        (fault,) = find_faults(schema, {"url": url}, "with")
        assert "without user and password" in fault["message"], url
    for headers in ("headers", "secret_headers"):
        (fault,) = find_faults(schema, {"url": "http://a", headers: {"X": "a\r\nInjected: b"}}, "with")
        assert (fault["path"], "no line break" in fault["message"]) == (f"with.{headers}.X", True)


async def test_tls_is_verified(bench: Bench, tmp_path: Path) -> None:
    ca_key = new_key()
    ca = new_ca(ca_key)
    key = new_key()
    (tmp_path / "chain.pem").write_bytes(new_server_certificate(ca_key, ca, key, ["127.0.0.1"]))
    (tmp_path / "key.pem").write_bytes(key)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "chain.pem", tmp_path / "key.pem")
    with web_server(tls=tls) as web:
        outcome, _ = await bench.call("http.get", {"url": web.url})
        assert outcome.error is not None and outcome.error.kind == "tls_failed", outcome
        outcome, _ = await bench.call("http.get", {"url": web.url, "ca": ca.decode()})
        assert outcome.result is StepResult.PASSED, outcome
        outcome, _ = await bench.call("http.get", {"url": web.url, "ca": new_ca(new_key()).decode()})
        assert outcome.error is not None and outcome.error.kind == "tls_failed"
        outcome, _ = await bench.call("http.get", {"url": f"https://localhost:{web.port}", "ca": ca.decode()})
        assert outcome.error is not None and outcome.error.kind == "tls_failed"
        outcome, _ = await bench.call("http.get", {"url": web.url, "ca": "no certificate"})
        assert outcome.error is not None and outcome.error.kind == "bad_ca"
        assert len(web.seen) == 1
