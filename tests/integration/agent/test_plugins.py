"""The built-in plugins on a real sshd, called as the agent's core calls them."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from proctor_common.states import StepResult
from support.bench import Bench
from support.processes import is_alive
from support.ssh_log import targets_for
from support.sshd import SshTarget
from support.wait import eventually


@pytest.fixture
async def bench(loopback: SshTarget, tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(targets_for(loopback), tmp_path)
    yield made
    await made.workbench.close()


# -- run_shell -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plugin", ["linux_system", "build_server"])
async def test_a_command_that_exits_with_0_passes(bench: Bench, plugin: str) -> None:
    outcome, attempt = await bench.call(f"{plugin}.run_shell", {"command": "ls", "args": "-alt"})
    assert outcome.result is StepResult.PASSED
    assert outcome.exit_code == 0
    assert set(outcome.output) == {
        "exit_code", "signal", "stdout_last_line", "stderr_last_line", "stdout", "duration_s"
    }  # fmt: skip
    assert outcome.output["exit_code"] == 0
    assert outcome.output["signal"] is None
    assert outcome.output["stdout"].encode() == attempt.out
    assert outcome.output["duration_s"] > 0
    assert len(attempt.groups) == len(attempt.ended) == 1


async def test_any_other_exit_fails_and_says_why(bench: Bench) -> None:
    outcome, _ = await bench.call("linux_system.run_shell", {"command": "ls", "args": ["/no/such"]})
    assert outcome.result is StepResult.FAILED
    assert outcome.exit_code == outcome.output["exit_code"] == 2
    assert "No such file" in outcome.output["stderr_last_line"]
    assert outcome.reason.startswith("exit code 2: ls:")

    outcome, _ = await bench.call("linux_system.run_shell", {"command": "kill -9 $$", "shell": True})
    assert (outcome.result, outcome.exit_code) == (StepResult.FAILED, None)
    assert (outcome.output["exit_code"], outcome.output["signal"]) == (None, "SIGKILL")
    assert outcome.reason == "ended by SIGKILL"


async def test_arguments_never_meet_a_shell_unless_it_is_asked_for(bench: Bench) -> None:
    words = ["$(touch pwned)", "a  b", "", "*", "`id`", "日本語", "\n"]
    outcome, _ = await bench.call("linux_system.run_shell", {"command": "printf", "args": ["%s|", *words]})
    assert outcome.output["stdout"] == "".join(f"{word}|" for word in words)

    outcome, _ = await bench.call(
        "linux_system.run_shell", {"command": "printf", "args": "'%s|' 'a b' \"c\" d\\ e $HOME"}
    )
    assert outcome.output["stdout"] == "a b|c|d e|$HOME|"

    outcome, _ = await bench.call("linux_system.run_shell", {"command": "printf", "args": ""})
    assert outcome.result is StepResult.FAILED

    parameters = {"command": 'printf "%s." "$1" "$2"; echo $((1+1))', "args": ["$(id)", "x y"], "shell": True}
    outcome, _ = await bench.call("linux_system.run_shell", parameters)
    assert outcome.output["stdout"] == "$(id).x y.2\n"


async def test_a_command_line_in_command_is_explained(bench: Bench) -> None:
    outcome, attempt = await bench.call("linux_system.run_shell", {"command": "ls -alt"})
    assert outcome.exit_code == 127
    assert b"belong into args" in attempt.system


async def test_environment_and_folder(bench: Bench) -> None:
    attempt = bench.attempt(env={"STEP": "from the step", "BOTH": "step"})
    outcome, _ = await bench.call(
        "linux_system.run_shell",
        {
            "command": "sh",
            "args": ["-c", 'echo "$STEP|$BOTH|$MINE|$PROCTOR_ATTEMPT|$PWD"'],
            "env": {"BOTH": "mine", "MINE": "a\nb"},
            "cwd": "/usr",
        },
        attempt,
    )
    assert outcome.output["stdout"] == "from the step|mine|a\nb|step-1.1|/usr\n"

    outcome, _ = await bench.call("linux_system.run_shell", {"command": "pwd", "cwd": "/no/such"})
    assert outcome.result is StepResult.ERROR
    assert outcome.error is not None
    assert outcome.error.kind == "no_such_directory"


async def test_the_result_keeps_the_last_64_kib_and_never_half_a_character(bench: Bench) -> None:
    script = "i=0; while [ $i -lt 50000 ]; do printf 'üü'; i=$((i+1)); done; printf '\\377end'"
    outcome, attempt = await bench.call("linux_system.run_shell", {"command": script, "shell": True})
    assert len(attempt.out) == 200_004
    kept = outcome.output["stdout"]
    assert 65_533 <= len(attempt.out[-65_536:].decode("utf-8", "ignore").encode()) <= 65_536
    assert kept.startswith("ü")
    assert kept.endswith("\ufffdend")
    assert len(outcome.output["stdout_last_line"]) == 4096


async def test_both_streams_go_to_the_log_as_they_come(bench: Bench) -> None:
    attempt = bench.attempt()
    task = asyncio.create_task(
        bench.call("linux_system.run_shell", {"command": "echo one; echo two >&2; sleep 60", "shell": True}, attempt)
    )
    await eventually(lambda: attempt.out == b"one\n" and attempt.err == b"two\n")
    assert not task.done()
    assert await bench.workbench.stop_tree("lab", attempt.groups, attempt.marker, 5) is True
    outcome, _ = await task
    assert outcome.output["signal"] == "SIGTERM"


# -- stopping --------------------------------------------------------------------------------------------------------


async def test_after_a_stop_no_command_starts_and_one_that_crossed_it_is_ended(bench: Bench) -> None:
    attempt = bench.attempt()
    attempt.stopping.set()
    outcome, _ = await bench.call("linux_system.run_shell", {"command": "true"}, attempt)
    assert outcome.error is not None
    assert outcome.error.kind == "stopping"

    attempt = bench.attempt()
    recorded = attempt.group_started

    async def stopped_meanwhile(group: Any) -> None:
        await recorded(group)
        attempt.stopping.set()

    attempt.group_started = stopped_meanwhile  # type: ignore[method-assign]
    outcome, _ = await asyncio.wait_for(
        bench.call("linux_system.run_shell", {"command": "sleep", "args": ["300"]}, attempt), 20
    )
    assert outcome.output["signal"] == "SIGTERM"
    assert not is_alive(attempt.groups[0].pgid)


# -- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plugin", "method", "target", "parameters", "says"),
    [
        ("nope", "run_shell", None, {}, "no such plugin: nope (loaded: build_server, "),
        ("linux_system", "nope", None, {}, "no such method: linux_system.nope"),
        ("linux_system", "run_shell", "nowhere", {"command": "ls"}, "no such target: nowhere"),
        ("linux_system", "run_shell", None, {}, "command: is required"),
        ("linux_system", "run_shell", None, {"command": ""}, "command: "),
        ("linux_system", "run_shell", None, {"command": 3}, "command: "),
        ("linux_system", "run_shell", None, {"command": "a\0b"}, "command: "),
        ("linux_system", "run_shell", None, {"command": "ls", "args": 3}, "args: "),
        (
            "linux_system",
            "run_shell",
            None,
            {"command": "ls", "args": "'open"},
            "args: No closing quotation",
        ),
        ("linux_system", "run_shell", None, {"command": "ls", "args": ["x"] * 1001}, "args: "),
        ("linux_system", "run_shell", None, {"command": "ls", "arg": []}, "arg: there is no such parameter"),
        ("linux_system", "run_shell", None, {"command": "ls", "env": {"A=B": "x"}}, "env.A=B"),
        ("linux_system", "run_shell", None, {"command": "ls", "env": {"A": 1}}, "env.A: "),
        ("linux_system", "ping", None, {"host": "-f"}, "host: "),
        ("linux_system", "ping", None, {"host": "a b"}, "host: "),
        ("linux_system", "ping", None, {"host": "a;reboot"}, "host: "),
        ("linux_system", "ping", None, {"host": "x", "count": 0}, "count: "),
        ("build_server", "build", None, {"command": "make"}, "either url or directory"),
        ("build_server", "build", None, {"command": [], "directory": "/"}, "command: "),
        ("build_server", "build", None, {"command": "make", "url": "-x"}, "url: "),
        ("build_server", "build", None, {"command": "make", "url": "ext::sh -c reboot"}, "url: "),
        ("build_server", "build", None, {"command": "make", "url": "https://u:secretpw@h/r"}, "hold no password"),
        ("build_server", "build", None, {"command": "make", "url": "https://h/r", "ref": "--upload-pack=x"}, "ref: "),
        ("build_server", "build", None, {"command": "make", "directory": "/", "artefacts": ["../x"]}, "artefacts.0: "),
        (
            "build_server",
            "build",
            None,
            {"command": "make", "directory": "/", "artefacts": ["/etc/*"]},
            "artefacts.0: ",
        ),
    ],
)
async def test_bad_orders_are_refused_by_name(
    bench: Bench, plugin: str, method: str, target: str | None, parameters: dict[str, Any], says: str
) -> None:
    reason = bench.workbench.check(plugin, method, target, parameters)
    assert says in reason
    assert "secretpw" not in reason
    outcome = await bench.workbench.call(bench.attempt(target=target), plugin, method, parameters)
    assert outcome.result is StepResult.ERROR
    assert says in outcome.reason


async def test_all_faults_are_named_at_once(bench: Bench) -> None:
    reason = bench.workbench.check("linux_system", "run_shell", None, {"command": 1, "args": 2, "x": 3})
    assert "command: " in reason and "args: " in reason and "x: " in reason


# -- system_information and ping ---------------------------------------------------------------------------------------


async def test_system_information_tells_the_truth(bench: Bench) -> None:
    outcome, attempt = await bench.call("linux_system.system_information", {})
    assert outcome.result is StepResult.PASSED
    facts = outcome.output
    uname = os.uname()
    assert facts["hostname"] == uname.nodename
    assert facts["kernel"] == {
        "name": uname.sysname, "release": uname.release, "version": uname.version, "machine": uname.machine
    }  # fmt: skip
    assert facts["cpu"]["count"] == os.cpu_count()
    assert facts["memory"]["total"] == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < facts["memory"]["available"] <= facts["memory"]["total"]
    (root,) = [disk for disk in facts["disks"] if disk["mount"] == "/"]
    whole = os.statvfs("/")
    assert abs(root["size"] - whole.f_blocks * whole.f_frsize) < 1024 * 1024
    assert facts["uptime_s"] > 0
    assert facts["load"]["one"] >= 0
    assert attempt.out == b"", "the document is the result, not the log"
    assert uname.nodename.encode() in attempt.system


IPUTILS = """#!/bin/sh
[ "$*" = "-c 2 -W 1 {host}" ] || {{ echo "unexpected: $*" >&2; exit 2; }}
cat <<'END'
PING {host} (192.0.2.7) 56(84) bytes of data.
64 bytes from 192.0.2.7: icmp_seq=1 ttl=64 time=0.043 ms

--- {host} ping statistics ---
2 packets transmitted, {got} received, {loss}% packet loss, time 1001ms
{times}
END
exit {code}
"""


def fake_ping(folder: Path, text: str) -> dict[str, str]:
    program = folder / "bin" / "ping"
    program.parent.mkdir()
    program.write_text(text)
    program.chmod(0o755)
    return {"PATH": f"{program.parent}:/usr/bin:/bin"}


async def test_ping_reads_what_the_targets_ping_prints(bench: Bench) -> None:
    times = "rtt min/avg/max/mdev = 0.043/0.051/0.060/0.008 ms"
    text = IPUTILS.format(host="dut-1.lab", got=1, loss=50, times=times, code=0)
    attempt = bench.attempt(env=fake_ping(bench.folder, text))
    outcome, _ = await bench.call("linux_system.ping", {"host": "dut-1.lab", "count": 2, "timeout": 1}, attempt)
    assert outcome.result is StepResult.PASSED
    assert outcome.output == {
        "host": "dut-1.lab", "address": "192.0.2.7", "sent": 2, "received": 1, "loss_percent": 50.0,
        "rtt_min_ms": 0.043, "rtt_avg_ms": 0.051, "rtt_max_ms": 0.060,
    }  # fmt: skip


async def test_no_answer_fails_and_no_ping_is_an_error(bench: Bench) -> None:
    text = IPUTILS.format(host="10.0.0.9", got=0, loss=100, times="", code=1)
    attempt = bench.attempt(env=fake_ping(bench.folder, text))
    outcome, _ = await bench.call("linux_system.ping", {"host": "10.0.0.9", "count": 2, "timeout": 1}, attempt)
    assert outcome.result is StepResult.FAILED
    assert outcome.output["loss_percent"] == 100.0
    assert outcome.reason == "no answer from 10.0.0.9 to 2 packets"

    attempt = bench.attempt(env={"PATH": "/no/such"})
    outcome, _ = await bench.call("linux_system.ping", {"host": "10.0.0.9"}, attempt)
    assert outcome.error is not None
    assert outcome.error.kind == "no_ping"
