"""What others named commands no terminal: names of runs and steps, faults, lines of logs."""

import io
import os
import subprocess
import sys
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
    assert capsys.readouterr().out == f"{SHOWN} | {SHOWN}\n"


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
shown.register = lambda to: to.command("runs")(lambda: render.LogPrinter().show({"type": "chunk", "text": "测\\n"}))
sys.modules["shown"] = shown
sys.exit(app.run_app(["runs"]))
"""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, b"\\u6d4b\n"), done.stderr
