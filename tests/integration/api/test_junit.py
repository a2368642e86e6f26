"""JUnit XML of runs, read by a parser as a CI server does."""

import asyncio
import xml.etree.ElementTree as ET
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from proctor_api.logs import ends
from proctor_cli.app import run_app
from proctor_cli.options import ApiOptions
from proctor_common.ids import new_id
from proctor_common.messages.views import StepView
from proctor_common.states import RunResult, RunState, Source, StepResult, StepState
from support.api_world import FIRST_TOKEN, Api, Attempt, FakeRun

START = datetime(2026, 12, 1, tzinfo=UTC)
HOSTILE = "a<b>&\"'\x00\x1b[31m]]>\ud83d\ufffe\n<script>"


Command = Callable[..., Awaitable[tuple[int, bytes, bytes]]]


@pytest.fixture
def command(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Command:
    """`proctor` against the api: exit code, standard output, and what the command says of a fault."""
    monkeypatch.setattr(ApiOptions, "url", None)
    monkeypatch.setattr(ApiOptions, "token", None)
    token = tmp_path / "token"
    token.write_text(FIRST_TOKEN)

    async def run(*words: str) -> tuple[int, bytes, bytes]:
        capfdbinary.readouterr()
        async with asyncio.timeout(20):
            code = await asyncio.to_thread(run_app, ["--url", api.url, "--token-file", str(token), *words])
        said = capfdbinary.readouterr()
        # The api of this test logs to the same stream.
        return code, said.out, b"".join(line for line in said.err.splitlines() if line.startswith(b"proctor: "))

    return run


def step(name: str, result: StepResult | None = StepResult.PASSED, **changes: Any) -> StepView:
    values: dict[str, Any] = {
        "id": new_id(),
        "step": name,
        "state": StepState.FINISHED if result else StepState.PENDING,
        "result": result,
        "attempt": 1,
        "host": "local-1",
        "started_at": START if result else None,
        "finished_at": START + timedelta(seconds=1.5) if result else None,
    }
    return StepView(**{**values, **changes})


def finished(api: Api, result: RunResult = RunResult.PASSED, *steps: StepView) -> FakeRun:
    run = api.world.add_run()
    run.name, run.state, run.result = "vnf <smoke>", RunState.FINISHED, result
    api.world.waiting_steps = list(steps)
    return run


async def junit(api: Api, run: FakeRun) -> ET.Element:
    answer = await api.call("GET", f"/v1/runs/{run.id}/junit")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/xml; charset=utf-8"
    return ET.fromstring(answer.content)


async def test_suites_cases_times_and_properties(api: Api) -> None:
    run = finished(
        api,
        RunResult.FAILED,
        step("build"),
        step("smoke", StepResult.FAILED, instance="case=vping", reason="exit code 3", exit_code=3,
             output={"stdout": "one\ntwo\n", "stderr_last_line": "boom"}),
        step("deploy", StepResult.ERROR, error={"kind": "ssh_denied", "message": "permission denied"}),
        step("slow", StepResult.TIMED_OUT),
        step("later", StepResult.UPSTREAM_FAILED, started_at=None),
        step("open", None, waiting_for="a slot on local-1"),
        step("rollback.build", StepResult.SKIPPED, started_at=None),
        step("always[0]"),
    )  # fmt: skip
    root = await junit(api, run)
    assert (root.tag, root.get("name")) == ("testsuites", "vnf <smoke>")
    numbers = ("tests", "failures", "errors", "skipped", "time")
    assert [root.get(name) for name in numbers] == ["7", "2", "1", "2", "7.500"]
    main, cleanup = root.findall("testsuite")
    assert [main.get(name) for name in numbers] == ["6", "2", "1", "2", "6.000"]
    assert (cleanup.get("name"), cleanup.get("tests")) == ("vnf <smoke>: always", "1")
    assert cleanup.find("properties") is None
    properties = {each.get("name"): each.get("value") for each in main.iter("property")}
    assert (properties["run"], properties["result"]) == (run.id, "failed")
    cases = {case.get("name"): case for case in main.findall("testcase")}
    assert list(cases) == ["build", "smoke[case=vping]", "deploy", "slow", "later", "open"]
    assert cases["build"].get("time") == "1.500" and len(cases["build"]) == 0
    failure = cases["smoke[case=vping]"].find("failure")
    assert failure is not None and failure.get("message") == "exit code 3"
    assert failure.text == "host local-1\nattempt 1\nexit code 3\nboom"
    assert cases["smoke[case=vping]"].findtext("system-out") == "one\ntwo\n"
    error = cases["deploy"].find("error")
    assert error is not None
    assert (error.get("type"), error.get("message")) == ("ssh_denied", "permission denied")
    skipped = cases["open"].find("skipped")
    assert skipped is not None and skipped.get("message") == "a slot on local-1"


async def test_hostile_text_is_text(api: Api) -> None:
    hostile = HOSTILE.encode("utf-8", "replace").decode()
    run = finished(
        api,
        RunResult.FAILED,
        step("a", StepResult.FAILED, reason=hostile, host=hostile, output={"stdout": hostile + "x" * 100_000}),
        step("b", StepResult.FAILED, reason=hostile, output={"stdout": hostile}),
    )
    root = await junit(api, run)
    long, short = root.iter("testcase")
    assert len(long.findtext("system-out") or "") < 20_000
    said = short.findtext("system-out") or ""
    assert "<script>" in said and "\x1b" not in said and "\x00" not in said


async def test_a_run_that_ended_badly_though_no_step_failed_is_no_success(api: Api) -> None:
    run = finished(api, RunResult.TIMED_OUT, step("a"), step("b", StepResult.CANCELLED))
    run.reason = "over its timeout"
    root = await junit(api, run)
    assert (root.get("tests"), root.get("failures")) == ("3", "1")
    own = next(case for case in root.iter("testcase") if case.get("name") == "(run)")
    failure = own.find("failure")
    assert failure is not None
    assert (failure.get("type"), failure.get("message")) == ("timed_out", "over its timeout")

    root = await junit(api, finished(api, RunResult.ERROR))
    assert (root.get("tests"), root.get("errors")) == ("1", "1")
    root = await junit(api, finished(api, RunResult.PASSED))
    assert (root.get("tests"), len(root.findall("testsuite"))) == ("0", 1)


async def test_the_command_writes_it_whole_or_not_at_all(api: Api, tmp_path: Path, command: Command) -> None:
    run = finished(api, RunResult.PASSED, step("a"))
    code, out, _ = await command("junit", run.id)
    answer = await api.call("GET", f"/v1/runs/{run.id}/junit")
    assert (code, out) == (0, answer.content)
    report = tmp_path / "reports" / "run.xml"
    assert await command("junit", run.id, "--output", str(report)) == (0, b"", b"")
    assert report.read_bytes() == answer.content
    code, _, err = await command("junit", new_id(), "--output", str(report.with_name("none.xml")))
    assert (code, b"no such run" in err) == (1, True)
    code, _, err = await command("junit", run.id, "--output", str(report / "below"))
    assert (code, b"cannot write" in err) == (2, True)
    assert list(report.parent.iterdir()) == [report]


async def test_show_names_a_nested_run(api: Api, command: Command) -> None:
    child = new_id()
    run = finished(api, RunResult.PASSED, step("a"), step("soak", kind="plan", child=child))
    code, out, _ = await command("show", run.id)
    assert (code, out.count(child.encode())) == (0, 1)
    assert b"nested run" in out.lower()
    run = finished(api, RunResult.PASSED, step("a"))
    assert b"nested run" not in (await command("show", run.id))[1].lower()


async def test_an_unknown_run_is_404(api: Api) -> None:
    assert (await api.call("GET", f"/v1/runs/{new_id()}/junit")).status_code == 404


BAR = "\x1b]0;title\x07\x1b[1;31m10%\r50%\r100%\x1b[0m\x1b[K\n"


async def test_a_cancelled_and_an_unfinished_run_are_errors(api: Api) -> None:
    run = finished(api, RunResult.CANCELLED, step("a"), step("b", StepResult.FAILED), step("c", StepResult.CANCELLED))
    run.reason = "cancelled by \x1b[1mjane\x1b[0m"
    root = await junit(api, run)
    assert [root.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["4", "1", "1", "1"]
    error = root.find(".//testcase[@name='(run)']/error")
    assert error is not None and (error.get("type"), error.get("message")) == ("cancelled", "cancelled by jane")
    for state in (RunState.QUEUED, RunState.RUNNING, RunState.PAUSED):
        run = finished(api, RunResult.PASSED, step("a"), step("b", None))
        run.state, run.result = state, None
        root = await junit(api, run)
        assert (root.get("tests"), root.get("errors")) == ("3", "1")
        error = root.find(".//testcase[@name='(run)']/error")
        assert error is not None
        assert (error.get("type"), error.get("message")) == ("unfinished", f"not finished: {state.value}")


async def test_attempts_before_the_last_are_there(api: Api) -> None:
    flaky, lost = step("flaky", attempt=3), step("hard", StepResult.FAILED, attempt=3)
    waiting = step("waits", StepResult.CANCELLED, attempt=3)

    def before(last: StepView, number: int, result: StepResult) -> StepView:
        output = {"stdout": BAR, "stderr_last_line": "\x1b[31mboom\x1b[0m"}
        more = {"attempt": number, "result": result, "reason": f"exit code {number}", "output": output}
        return last.model_copy(update={"state": StepState.FINISHED, **more})

    run = finished(api, RunResult.FAILED, flaky, step("plain"), lost, waiting)
    api.world.earlier_attempts = [
        before(flaky, 1, StepResult.FAILED),
        before(flaky, 2, StepResult.LOST),
        before(lost, 1, StepResult.TIMED_OUT),
        before(lost, 2, StepResult.ERROR),
        before(waiting, 3, StepResult.FAILED),
    ]
    root = await junit(api, run)
    assert [root.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["4", "1", "0", "1"]
    cases = {case.get("name"): case for case in root.iter("testcase")}
    tags = {name: [each.tag for each in case] for name, case in cases.items()}
    assert tags == {
        "flaky": ["flakyFailure", "flakyError"],
        "plain": [],
        "hard": ["failure", "rerunFailure", "rerunError"],
        "waits": ["skipped", "rerunFailure"],
    }
    first = cases["flaky"][0]
    assert (first.get("type"), first.get("message")) == ("failed", "exit code 1")
    assert [(each.tag, each.text) for each in first] == [
        ("stackTrace", "host local-1\nattempt 1\nboom"),
        ("system-out", "100%\n"),
    ]


async def test_of_a_failure_both_streams_are_there(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "MOST_READ", 4 * 1024 * 1024)
    run = finished(api, RunResult.FAILED)
    attempt = Attempt(1, new_id(), "deploy", 1, new_id())
    store, chunk = api.world.store, api.world.chunk
    await store(run, attempt, chunk(attempt, b"first words\n" + BAR.encode()))
    await store(run, attempt, chunk(attempt, b"warned \xc3", source=Source.STDERR))
    await store(run, attempt, chunk(attempt, b"\xa9 early\n", source=Source.STDERR))
    for _ in range(40):
        await store(run, attempt, chunk(attempt, b"noise of a line\n" * 4000))
    await store(run, attempt, chunk(attempt, b"last words\n"))
    await store(run, attempt, chunk(attempt, b"\x1b[31mtraceback\x1b[0m\n", source=Source.STDERR))
    await store(run, attempt, chunk(attempt, b"of a stranger\n"), agent=new_id())
    failed = {"id": attempt.step_id, "agent": attempt.agent}
    kept = {"stdout": "x" * 60_000 + "\nkept", "stderr": "e"}
    api.world.waiting_steps = [
        step("deploy", StepResult.TIMED_OUT, **failed, output={"stdout": "noise"}),
        step("gone", StepResult.FAILED, id=new_id(), agent=new_id(), output=kept),
    ]
    root = await junit(api, run)
    deploy, gone = root.iter("testcase")
    out, err = deploy.findtext("system-out") or "", deploy.findtext("system-err")
    assert out.startswith("first words\n100%\nnoise") and out.endswith("line\nlast words\n")
    assert "cut) …" in out and len(out) < 20_000
    assert err == "warned é early\ntraceback\n"
    out = gone.findtext("system-out") or ""
    assert out.startswith("xxx") and out.endswith("x\nkept") and "(43621 characters cut)" in out
    assert gone.findtext("system-err") == "e"


async def test_of_a_very_long_log_the_middle_is_not_read(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "MOST_READ", 1000)
    monkeypatch.setattr(ends, "NEWEST", 3)
    monkeypatch.setattr(ends, "BATCH", 2)
    run = finished(api, RunResult.FAILED)
    attempt = Attempt(1, new_id(), "deploy", 1, new_id())
    for number in range(20):
        await api.world.write(run, attempt, f"line {number}\n" + "x" * 400)
    api.world.waiting_steps = [step("deploy", StepResult.LOST, id=attempt.step_id, agent=attempt.agent)]
    out = (await junit(api, run)).findtext(".//system-out") or ""
    assert "line 0\n" in out and "line 19\n" in out and "line 10\n" not in out and "(cut) …" in out
