"""What others named commands no terminal: names of runs and steps, faults, lines of logs."""

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from proctor_cli.app import run_app
from proctor_cli.following import _show
from proctor_cli.inputs import read_plan
from proctor_cli.render import LogPrinter, talk, verdict

EVIL = "x\x1b[2J\x9b31m\u202ey"
SHOWN = "x\\x1b[2J\\x9b31m\\u202ey"


def test_talk_commands_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    talk(f"{EVIL} 测试")
    verdict(EVIL, "failed", EVIL, 1.0)
    _show(LogPrinter(), {"type": "step", "step": f"m[w={EVIL}]", "result": "failed", "host": "h1"})
    assert capsys.readouterr().err.splitlines() == [
        f"{SHOWN} 测试",
        f"✗ {SHOWN} failed in 1.00 s: {SHOWN}",
        f"· m[w={SHOWN}] failed on h1",
    ]


def test_a_step_s_name_before_its_lines_is_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    LogPrinter(steps=True).show({"type": "chunk", "step": EVIL, "attempt": 1, "text": f"{EVIL}\n"})
    name, _, text = capsys.readouterr().out.partition(" | ")
    assert name == SHOWN
    assert not {"\x1b", "\u202e", "\r", "\x07"} & set(text)


def test_a_fault_is_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_app(["run", f"/no/such/{EVIL}.yaml"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("proctor: cannot read the plan") and "\x1b" not in told and "\u202e" not in told


def test_a_plan_that_is_not_utf8_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tmp_path / "plan.json"
    plan.write_bytes('{"name": "测试"}'.encode("gbk"))
    assert run_app(["run", str(plan)]) == 2
    assert capsys.readouterr().err == f"proctor: cannot read the plan: {plan} is not UTF-8 text (byte 11)\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(plan.open("rb"), encoding="gbk"))
    assert run_app(["run", "-"]) == 2
    assert "standard input is not UTF-8 text" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("测\r\n".encode()), encoding="ascii"))
    assert read_plan("-") == "测\n"


def test_a_log_that_the_terminal_cannot_show_ends_nothing() -> None:
    program = """
from proctor_cli import app, render
app.CLIENT = ("shown",)
import sys, types, typer
shown = types.ModuleType("shown")
chunk = {"type": "chunk", "step": "s", "attempt": 1, "text": "测\\n"}
shown.register = lambda to: to.command("runs")(lambda: render.LogPrinter().show(chunk))
sys.modules["shown"] = shown
sys.exit(app.run_app(["runs"]))
"""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, b"\\u6d4b\n"), done.stderr


def printed(capsys: pytest.CaptureFixture[str], *chunks: tuple[str, str, str], **how: bool) -> str:
    printer = LogPrinter(**how)
    for step, source, text in chunks:
        printer.show({"type": "chunk", "step": step, "attempt": 1, "source": source, "text": text, "time": "T"})
    printer.flush()
    return capsys.readouterr().out


def test_of_a_progress_bar_its_last_state_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    bar = [("s", "stdout", f"\x1b[32m{n} %\x1b[0m\r") for n in (1, 50, 100)]
    assert printed(capsys, *bar, ("s", "stdout", "\ndone\n")) == "100 %\ndone\n"


def test_a_line_of_another_stream_never_stands_in_one_that_has_begun(capsys: pytest.CaptureFixture[str]) -> None:
    chunks = [("s", "stdout", "half"), ("s", "system", "proctor: told\n"), ("s", "stdout", " a line\n")]
    assert printed(capsys, *chunks) == "proctor: told\nhalf a line\n"


def test_each_line_has_its_steps_name_however_long_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    chunks = [("a", "stdout", "x" * 100_000), ("b", "stdout", "y\n"), ("a", "stdout", "z\n")]
    lines = printed(capsys, *chunks, steps=True).splitlines()
    assert {line[:4] for line in lines} == {"a | ", "b | "}
    assert "".join(line[4:] for line in lines if line.startswith("a")) == "x" * 100_000 + "z"


def test_raw_is_what_came(capsys: pytest.CaptureFixture[str]) -> None:
    text = "\x1b[31m1 %\r2 %\x07\n"
    assert printed(capsys, ("s", "stdout", text), raw=True) == text


def test_a_log_without_line_ends_is_printed_in_linear_time(capsys: pytest.CaptureFixture[str]) -> None:
    def seconds(pieces: int) -> float:
        began = time.process_time()
        printed(capsys, *[(step, "stdout", "x" * 65_536) for _ in range(pieces) for step in "ab"], steps=True)
        return time.process_time() - began

    seconds(8)
    assert seconds(128) < 12 * seconds(16) + 0.1
