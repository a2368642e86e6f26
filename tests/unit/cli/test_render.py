"""What others named commands no terminal: names of runs and steps, faults, lines of logs."""

import pytest

from proctor_cli.app import run_app
from proctor_cli.following import _show
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
