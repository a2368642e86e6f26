"""Ctrl-C around a submission: one line that says whether a run goes on."""

from typing import Any, cast

import pytest

from proctor_cli import options
from proctor_cli.app import run_app
from proctor_cli.client import Client
from proctor_cli.commands.submit import stops_reported
from proctor_cli.faults import Stopped


class Api:
    """Starts one run, or is interrupted while it does."""

    def __init__(self, interrupted: bool = False) -> None:
        self.interrupted = interrupted

    def post(self, path: str, body: Any, *, starts: bool) -> dict[str, Any]:
        if self.interrupted:
            raise KeyboardInterrupt
        return {"id": "r1", "number": 7}


def stop(api: Api | None = None) -> None:
    """Submit, where there is an api to submit to; then Ctrl-C."""
    with stops_reported() as progress:
        if api is not None:
            progress.submit(cast(Client, api), "/v1/runs", {})
        raise KeyboardInterrupt


def test_before_in_and_after_the_submission() -> None:
    stages = [
        (None, "before anything was started"),
        (Api(interrupted=True), "shows whether it was started"),
        (Api(), "goes on: `proctor show 7`"),
    ]
    for api, says in stages:
        with pytest.raises(Stopped, match=says) as stopped:
            stop(api)
        assert stopped.value.exit_code == 130


def test_while_the_words_are_read(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(url: object, token_file: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(options, "set_api_options", interrupted)
    assert run_app(["--url", "http://127.0.0.1:1", "case", "local-1", "linux_system.run_shell"]) == 130
    assert capsys.readouterr().err == "proctor: stopped before anything was started\n"
