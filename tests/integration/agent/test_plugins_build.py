"""``build_server.build`` on a real sshd: checkout, command, artefacts."""

import hashlib
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proctor_common.states import StepResult
from support.bench import Bench
from support.ssh_log import targets_for
from support.sshd import SshTarget


@pytest.fixture
async def bench(loopback: SshTarget, tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(targets_for(loopback), tmp_path)
    yield made
    await made.workbench.close()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()

    def git(*args: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(folder), *args],
            check=True,
            timeout=20,
        )

    git("init", "--quiet", "-b", "main")
    (folder / "make.sh").write_text(
        "mkdir -p out; printf one >out/a.bin; printf two >'out/b c.bin'; echo \"$FLAVOUR\"\n"
    )
    git("add", ".")
    git("commit", "--quiet", "-m", "first")
    git("tag", "v1")
    (folder / "later").write_text("x")
    git("add", ".")
    git("commit", "--quiet", "-m", "second")
    return folder


async def test_a_build_from_git_lists_its_artefacts(bench: Bench, repository: Path) -> None:
    parameters = {
        "url": f"file://{repository}", "ref": "v1", "command": "sh make.sh", "env": {"FLAVOUR": "plain"},
        "artefacts": ["out/*.bin", "make.sh"],
    }  # fmt: skip
    outcome, attempt = await bench.call("build_server.build", parameters)
    assert outcome.result is StepResult.PASSED, (outcome, attempt.pieces)
    result = outcome.output
    assert result["workspace"] == str(bench.folder / "work" / "step-1.1")
    assert result["commit"] == (repository / ".git" / "refs" / "tags" / "v1").read_text().strip()
    assert [(a["path"], a["size"]) for a in result["artefacts"]] == [
        ("out/a.bin", 3), ("out/b c.bin", 3), ("make.sh", (repository / "make.sh").stat().st_size)
    ]  # fmt: skip
    assert result["artefacts"][0]["sha256"] == hashlib.sha256(b"one").hexdigest()
    assert result["stdout_last_line"] == "plain"
    assert not (Path(result["workspace"]) / "later").exists()


async def test_a_build_fails_where_its_command_or_an_artefact_fails(bench: Bench, repository: Path) -> None:
    directory = {"directory": str(repository)}
    outcome, _ = await bench.call("build_server.build", {**directory, "command": ["sh", "-c", "echo why >&2; exit 4"]})
    assert (outcome.result, outcome.exit_code) == (StepResult.FAILED, 4)
    assert outcome.reason == "the build ended with exit code 4: why"

    outcome, _ = await bench.call(
        "build_server.build", {**directory, "command": "true", "artefacts": ["*.sh", "*.rpm"]}
    )
    assert outcome.result is StepResult.FAILED
    assert outcome.reason == "no artefact matches *.rpm"
    assert [a["path"] for a in outcome.output["artefacts"]] == ["make.sh"]


async def test_artefacts_never_lead_out_of_the_workspace(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("private")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link").symlink_to(tmp_path / "secret" / "key")
    (inside / "folder").symlink_to(tmp_path / "secret")
    (inside / "$(touch pwned)").write_text("odd")
    (inside / "good").write_text("good")
    parameters = {
        "directory": str(inside),
        "command": "true",
        "artefacts": ["link", "folder/*", "$(touch pwned)", "g*"],
    }
    outcome, _ = await bench.call("build_server.build", parameters)
    assert [a["path"] for a in outcome.output["artefacts"]] == ["$(touch pwned)", "good"]
    assert outcome.reason == "no artefact matches link, folder/*"
    assert not (inside / "pwned").exists()


async def test_a_steps_own_artefacts_are_found_anywhere_by_absolute_paths(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    odd = tmp_path / "real" / "two words\n$(touch pwned)"
    odd.write_text("odd")
    (tmp_path / "folder").symlink_to(tmp_path / "real")
    (tmp_path / "link").symlink_to(odd)
    patterns = [f"{tmp_path}/folder/*", f"{tmp_path}/link", f"{tmp_path}/no such", "/"]
    found, missing = await bench.workbench.find_artefacts(bench.attempt(), patterns)
    assert [each["path"] for each in found] == [str(odd)]
    assert missing == patterns[1:]
    read = bench.workbench.read_artefact
    assert await read(None, str(odd), 0, 100) == (3, b"odd")
    assert await read(None, str(odd), 1, 1) == (3, b"d")
    assert await read(None, str(odd), 3, 0) == (3, b"")
    for path in (f"{tmp_path}/link", f"{tmp_path}/real", f"{tmp_path}/no such"):
        with pytest.raises(FileNotFoundError):
            await read(None, path, 0, 100)


@pytest.mark.parametrize(
    ("url", "kind"), [("https://example.org/x.git", "protocol_not_allowed"), ("file:///no/such", "checkout_failed")]
)
async def test_a_source_that_cannot_be_fetched_is_an_error(bench: Bench, url: str, kind: str) -> None:
    outcome, _ = await bench.call("build_server.build", {"url": url, "command": "true"})
    assert outcome.result is StepResult.ERROR
    assert outcome.error is not None
    assert outcome.error.kind == kind


async def test_a_token_is_in_no_process_argument(bench: Bench, repository: Path) -> None:
    program = bench.folder / "bin" / "git"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\n"
        f"ps axww -o args >>{bench.folder}/seen\n"
        f'echo "$GIT_CONFIG_VALUE_0" >>{bench.folder}/values\n'
        "echo 0\n"
    )
    program.chmod(0o755)
    bench.workbench._loaded.plugins["build_server"].methods["build"].function.__self__.settings.protocols.append(
        "https"
    )
    attempt = bench.attempt(env={"PATH": f"{program.parent}:/usr/bin:/bin"})
    parameters = {"url": "https://example.org/x.git", "token": "t0ken-value", "command": "true"}
    outcome, _ = await bench.call("build_server.build", parameters, attempt)
    assert outcome.result is StepResult.PASSED
    assert "Authorization: Basic" in (bench.folder / "values").read_text()
    seen = (bench.folder / "seen").read_text()
    assert "fetch" in seen
    assert "t0ken" not in seen and "Basic" not in seen
    assert not any(b"t0ken" in data for _, data in attempt.pieces)
