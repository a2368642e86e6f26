"""The plans in examples/, run as they stand on one local system, and the commands that act on their runs."""

import hashlib
import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proctor_controller.handlers.table import HANDLERS
from support.system import System, local_system
from support.wait import eventually_sync
from support.web import WebServer, web_server

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
PASSING = ("smoke", "pipeline", "matrix", "retry", "gate", "artefacts", "seed-plan")
LEASING = ("lease", "nested/suite")
whole_runs = pytest.mark.skipif(
    "run.pause" not in HANDLERS, reason="verbs, leases, cleanup and outputs of whole runs are not in the engine yet"
)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with local_system("examples", tmp_path_factory.mktemp("examples")) as found:
        yield found


@pytest.fixture
def web() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


def plan_files() -> set[str]:
    return {str(path.relative_to(EXAMPLES).with_suffix("")) for path in EXAMPLES.rglob("*") if path.is_file()}


def run_all(system: System, names: tuple[str, ...]) -> dict[str, Any]:
    """The runs of these examples, at once, when they have ended."""
    files = {name: next(EXAMPLES.glob(f"{name}.*")) for name in names}
    begun = {name: system.ask("run", file, "--no-follow")["id"] for name, file in files.items()}
    return {name: system.until(run, "finished") for name, run in begun.items()}


def test_no_example_is_left_out() -> None:
    assert plan_files() == {*PASSING, *LEASING, "rollback", "nested/probe"}


def test_examples_pass_as_they_stand(system: System) -> None:
    ended = run_all(system, PASSING)
    assert {name: view["result"] for name, view in ended.items()} == dict.fromkeys(PASSING, "passed")
    steps = system.steps(ended["pipeline"]["id"])
    assert steps["big"]["result"] == "skipped"
    assert "cores" in steps["join"]["outputs"]["line"]
    assert max(steps[a]["started_at"] for a in ("kernel", "facts")) < steps["join"]["started_at"]
    assert len(system.steps(ended["matrix"]["id"])) == 6
    assert system.steps(ended["retry"]["id"])["warm_up"]["attempt"] == 3
    assert system.steps(ended["gate"]["id"])["release"]["result"] == "skipped"
    assert system.get(f"/v2.1/testplan/{ended['seed-plan']['number']}").json()["TestCase : 2"]["TestStep : 1"] == {
        "input": {
            "plugin": "linux_system", "host": "local-1", "method": "run_shell",
            "parameters": {"command": "echo", "args": "hello again"},
        },
        "output": {"log": "hello again\n", "result": "PASS"},
    }  # fmt: skip
    assert "hei from" in system.proctor("run", EXAMPLES / "pipeline.yaml", "-p", "greeting=hei").out
    failed = system.proctor("run", EXAMPLES / "rollback.yaml", code=1)
    assert "check failed" in failed.err and "data is stale" in failed.out


@whole_runs
def test_examples_that_lease_nest_and_take_back(system: System) -> None:
    assert system.proctor("plans", "push", EXAMPLES / "nested/probe.yaml").out == "probe@1\n"
    ended = run_all(system, (*LEASING, "pipeline", "rollback"))
    assert ended.pop("rollback")["result"] == "failed"
    assert {view["result"] for view in ended.values()} == {"passed"}
    assert "cores" in ended["pipeline"]["outputs"]["line"]
    assert ended["lease"]["outputs"] == {"host": "local-1"}
    assert ended["nested/suite"]["outputs"] == {"said": "after first on local-1 on local-1"}
    _took_back(system, system.ask("runs", "--plan", "rollback", "--limit", "1")[0]["id"])


def _took_back(system: System, run: str) -> None:
    steps = system.steps(run)
    results = {name: steps[name]["result"] for name in steps}
    assert results == {
        "folder": "passed", "file": "passed", "check": "failed", "never": "upstream_failed", "on_failure[0]": "passed",
        "rollback.file": "passed", "rollback.folder": "passed", "always[0]": "passed",
    }  # fmt: skip
    order = ["on_failure[0]", "rollback.file", "rollback.folder", "always[0]"]
    assert sorted(order, key=lambda name: steps[name]["started_at"]) == order
    assert not Path(steps["folder"]["outputs"]["path"]).exists()
    suites = {suite.get("name"): suite for suite in ET.fromstring(system.get(f"/v1/runs/{run}/junit").content)}
    assert set(suites) == {"rollback", "rollback: on_failure", "rollback: rollback", "rollback: always"}
    assert [suites["rollback"].get(name) for name in ("tests", "failures", "skipped")] == ["4", "1", "1"]


LEAVING = """
testplan_version: "2026-12-01"
name: leaving
steps:
  leave:
    uses: linux_system.run_shell
    runs_on: {{host: local-1}}
    artefacts: ["{folder}/*.bin", "{folder}/none-*", "{folder}/empty"]
    with:
      shell: true
      command: 'cd "$1" && head -c 1300000 /dev/urandom >a.bin && : >empty && exit 3'
      args: ["{folder}"]
  build:
    uses: build_server.build
    runs_on: {{host: local-1}}
    with: {{directory: "{folder}", command: [sh, -c, "mkdir -p out; echo made >out/b.log"], artefacts: ["out/*"]}}
"""


def test_what_steps_leave_is_listed_and_handed_out_as_long_as_it_is_the_same(system: System, tmp_path: Path) -> None:
    (left := tmp_path / "left").mkdir()
    plan = tmp_path / "leaving.yaml"
    plan.write_text(LEAVING.format(folder=left))
    done = system.proctor("run", plan, code=1)
    assert f"no file matches the artefact pattern {left}/none-*" in done.out
    run = system.ask("runs", "--plan", "leaving", "--limit", "1")[0]["id"]
    saved = tmp_path / "saved"
    listed = system.ask("artefacts", run, "--save", saved)
    found = {(each["step"], each["path"]): each for each in listed}
    assert set(found) == {("leave", f"{left}/a.bin"), ("leave", f"{left}/empty"), ("build", f"{left}/out/b.log")}
    for each in listed:
        data = (saved / f"{each['id']}-{Path(each['path']).name}").read_bytes()
        assert data == Path(each["path"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (each["size"], each["sha256"])
    (page,) = system.get(f"/v1/runs/{run}/artefacts?limit=1").json()["items"]
    following = system.get(f"/v1/runs/{run}/artefacts?cursor={page['id']}").json()["items"]
    assert [page, *following] == listed

    log = f"/v1/runs/{run}/artefacts/{found['build', f'{left}/out/b.log']['id']}"
    (left / "out/b.log").write_text("MADE\n")
    assert (system.get(log).status_code, system.get(log).json()["code"]) == (409, "conflict")
    (left / "out/b.log").unlink()
    assert "is gone" in system.get(log).json()["detail"]
    assert "is gone" in system.proctor("artefacts", run, "--save", tmp_path / "again", code=1).err
    assert {file.name.split("-", 3)[3] for file in (tmp_path / "again").iterdir()} == {"a.bin", "empty"}
    for wrong in ("0-1-9", "0-9-0", "9-1-0", "x", "0-1", "-1-1-0", "..%2f..%2fetc%2fpasswd"):
        assert system.get(f"/v1/runs/{run}/artefacts/{wrong}").status_code == 404, wrong
    assert system.get("/v1/runs/999999/artefacts").status_code == 404


@whole_runs
def test_a_gate_waits_for_a_word_and_a_rerun_reuses_what_passed(system: System, web: WebServer) -> None:
    run = system.ask("run", EXAMPLES / "gate.yaml", "-p", "site=production", "--no-follow")["id"]

    def waits() -> Any:
        row = system.steps(run)["release"]
        assert row["waiting_for"], row
        return row

    eventually_sync(waits, 20, "the gate to wait")
    assert "waits for" in system.proctor("show", run).out.lower()
    rejected = system.ask("approve", run, "release", "--reject")
    assert rejected["id"] == run
    assert system.until(run, "finished")["result"] == "failed"
    assert "release" in system.proctor("show", run, "--gantt").out

    again = system.ask("rerun", run, "--failed")
    assert again["rerun_of"] == run
    eventually_sync(lambda: system.steps(again["id"])["release"]["waiting_for"], 20, "the gate to wait again")
    assert system.steps(again["id"])["build"]["result"] == "reused"
    system.proctor("approve", again["id"], "release")
    assert system.until(again["id"], "finished")["result"] == "passed"
    system.proctor("rerun", "999999", code=2)


SLOW = """
testplan_version: "2026-12-01"
name: slow
parameters: {{secret: {{type: string, hidden: true}}}}
webhook: {{url: "{url}", secret: "${{{{ params.secret }}}}"}}
steps:
  first: {{uses: linux_system.run_shell, runs_on: {{host: local-1}}, with: {{command: sleep, args: "1"}}}}
  second: {{uses: linux_system.run_shell, runs_on: {{host: local-1}}, depends_on: [first], with: {{command: "true"}}}}
"""


@whole_runs
def test_pause_resume_and_the_call_at_the_end(system: System, web: WebServer, tmp_path: Path) -> None:
    plan = tmp_path / "slow.yaml"
    plan.write_text(SLOW.format(url=f"{web.url}/ended"))
    run = system.ask("run", plan, "-p", "secret=swordfish", "--no-follow")
    assert run["parameters"] == {"secret": "***"}
    paused = system.ask("pause", run["id"])
    assert paused["state"] in {"pausing", "paused"}
    system.until(run["id"], "paused")
    assert system.steps(run["id"])["second"]["state"] != "finished"
    system.proctor("resume", run["id"])
    assert system.until(run["id"], "finished")["result"] == "passed"
    call = eventually_sync(lambda: web.seen, 20, "the webhook")[0]
    assert call.json()["data"]["id"] == run["id"]
    assert call.headers["webhook-signature"].startswith("v1,")
    assert b"swordfish" not in call.body
    events = system.ask("show", run["id"], "--events")["events"]
    assert [e["to"] for e in events if e["kind"] == "run"][-1] == "finished"
    assert {"pausing", "paused"} <= {e["to"] for e in events if e["kind"] == "run"}
    followed = [
        json.loads(line) for line in system.proctor("show", run["id"], "--events", "-f", "-o", "json").out.splitlines()
    ]
    assert [frame.get("seq") for frame in followed] == [*(e["seq"] for e in events), None]
    assert "run  paused -> running" in system.proctor("show", run["id"], "--events", "-f").out


def test_stored_plans_and_schedules(system: System, tmp_path: Path) -> None:
    smoke = EXAMPLES / "smoke.yaml"
    assert system.proctor("plans", "push", smoke).out == "smoke@1\n"
    assert system.proctor("plans", "push", smoke).out == "smoke@1\n"
    assert system.proctor("plans", "show", "smoke@1").out == smoke.read_text()
    assert "smoke" in [plan["name"] for plan in system.ask("plans")]
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(smoke.read_text().replace("timeout: 1m", "timeout: 1 minute\n    tineout: 1m"))
    told = system.proctor("plans", "validate", wrong, code=1).out.splitlines()
    assert len(told) == 2 and all(line.startswith(f"{wrong}:") for line in told)
    assert system.proctor("plans", "push", wrong, code=1).out.splitlines() == told
    schema = json.loads(system.proctor("plans", "schema").out)
    assert schema == json.loads((EXAMPLES.parent / "docs" / "testplan.schema.json").read_text())
    assert system.ask("run", "smoke@1", "--no-follow")["name"] == "smoke"
    system.proctor("run", "no-such-plan", code=2)

    when = ("--cron", "0 3 * * sun", "--timezone", "Europe/Berlin", "--plan", "smoke")
    made = system.ask("schedules", "put", "weekly", *when)
    assert made["next_at"] > made["created_at"]
    assert [each["name"] for each in system.ask("schedules")] == ["weekly"]
    assert "weekly" in system.proctor("schedules", "show", "weekly").out
    system.proctor("schedules", "put", "bad", "--cron", "* * *", "--plan", "smoke", code=2)
    system.proctor("schedules", "delete", "weekly")
    system.proctor("schedules", "show", "weekly", code=1)
    system.proctor("plans", "delete", "smoke")
    system.proctor("plans", "show", "smoke", code=1)
