"""The CLI against a real api: what was typed wrong is a usage fault, told in one line that names it."""

import asyncio
from pathlib import Path

import pytest

from proctor_cli.app import run_app
from proctor_cli.options import ApiOptions
from support.api_world import FIRST_TOKEN, Api

TYPED_WRONG = [
    ("logs RUN --since zz", 2, "--since: not a cursor"),
    ("logs RUN -f --since zz", 2, "--since: not a cursor"),
    ("logs RUN --raw --since zz", 2, "--since: not a cursor"),
    ("logs RUN --tail 3 --since zz", 2, "--tail and --since exclude each other"),
    ("logs RUN --step biuld", 2, "no such step: biuld"),
    ("logs RUN -f --step biuld", 2, "no such step: biuld"),
    ("token create ci --role boss", 2, "role: "),
    ("token create ci --group lba", 1, "no such group: lba"),
    ("runs --state zz", 2, "state: "),
    ("logs 4711", 1, "no such run: 4711"),
    ("case local-1 linux_system.nope", 2, "no such method: nope"),
]


async def test_what_was_typed_wrong(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ApiOptions, "url", None)
    monkeypatch.setattr(ApiOptions, "token", None)
    token = tmp_path / "token"
    token.write_text(FIRST_TOKEN)
    run = api.world.add_run()
    await api.world.write(run, api.world.begin(run), "1\n")
    for line, code, says in TYPED_WRONG:
        words = ["--url", api.url, "--token-file", str(token), *line.replace("RUN", run.id).split()]
        async with asyncio.timeout(20):
            ended = await asyncio.to_thread(run_app, words)
        shown = capsys.readouterr()
        assert (ended, shown.out) == (code, ""), (line, shown.err)
        # The api of this test logs to the same stream.
        (told,) = [said for said in shown.err.splitlines() if said.startswith("proctor: ")]
        assert told.startswith(f"proctor: {says}"), line
