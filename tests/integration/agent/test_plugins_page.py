"""The plugin that docs/plugins.md builds, installed and run as the page says."""

import importlib
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from proctor_agent.loader import load
from proctor_agent.plugin_host import PluginWorkbench
from proctor_agent.ssh import Targets
from proctor_common.states import StepResult
from support.ssh_log import RecordedAttempt, as_target, targets_for
from support.sshd import SshTarget

PAGE = Path(__file__).parents[3] / "docs" / "plugins.md"


def block(language: str, holds: str) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (text,) = [text for text in found if holds in text]
    return text


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What an installer makes of the page's two files: the module, and the metadata with its entry points."""
    folder = tmp_path / "site"
    folder.mkdir()
    project = tomllib.loads(block("toml", "[project]"))["project"]
    (folder / "lab_disk.py").write_text(block("python", "class Disk(Plugin)"))
    metadata = folder / f"lab_disk-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = [
        f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in entries.items())
        for group, entries in project["entry-points"].items()
    ]
    (metadata / "entry_points.txt").write_text("".join(lines))
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()
    yield folder
    sys.modules.pop("lab_disk", None)


def test_the_example_has_no_more_lines_than_the_page_promises() -> None:
    assert len([line for line in block("python", "class Disk(Plugin)").splitlines() if line.strip()]) <= 30


async def test_the_example_is_found_and_runs(installed: Path, loopback: SshTarget, tmp_path: Path) -> None:
    loaded = load(["linux_system", "disk"])
    assert loaded.errors == {}
    workbench = PluginWorkbench(loaded, targets_for(loopback))
    schema = workbench.plugins["disk"].methods["free"].parameters
    assert schema["properties"]["at_least_mb"]["minimum"] == 0

    attempt = RecordedAttempt(tmp_path)
    outcome = await workbench.call(attempt, "disk", "free", {"path": "/tmp"})
    assert outcome.result is StepResult.PASSED
    assert outcome.output["free_mb"] > 0
    assert f"{outcome.output['free_mb']} MiB are free in /tmp\n".encode() == attempt.system
    assert attempt.out.startswith(b"Filesystem")

    outcome = await workbench.call(RecordedAttempt(tmp_path), "disk", "free", {"at_least_mb": 10**12})
    assert outcome.result is StepResult.FAILED
    assert outcome.reason.endswith("1000000000000 wanted")

    outcome = await workbench.call(RecordedAttempt(tmp_path), "disk", "free", {"path": "/no/such"})
    assert outcome.error is not None
    assert (outcome.error.kind, outcome.error.data) == ("df_failed", {"path": "/no/such"})
    assert "at_least_mb: " in workbench.check("disk", "free", None, {"at_least_mb": -1})
    await workbench.close()


async def test_the_pages_own_test_passes(installed: Path, loopback: SshTarget) -> None:
    names: dict[str, object] = {}
    exec(compile(block("python", "async def test_"), str(PAGE), "exec"), names)
    names["LAB"] = as_target(loopback)
    await names["test_a_full_disk_fails"]()  # type: ignore[operator]


async def test_a_method_under_test_that_hangs_is_stopped(installed: Path, loopback: SshTarget) -> None:
    from proctor_agent.plugins.linux_system import LinuxSystem
    from proctor_agent.testing import try_method

    with pytest.raises(TimeoutError, match="did not end within"):
        await try_method(
            LinuxSystem, "run_shell", {"command": "sleep", "args": ["397"]}, target=as_target(loopback), timeout_s=1
        )
    done = await try_method(
        LinuxSystem,
        "run_shell",
        {"command": "ps axww -o args | grep -c '^sleep 397'", "shell": True},
        target=as_target(loopback),
    )
    assert done.stdout == b"0\n"


def test_the_page_names_the_settings_that_there_are() -> None:
    from proctor_agent.settings import AgentSettings

    shown = tomllib.loads(block("toml", "plugin_settings.build_server"))
    assert set(shown) <= set(AgentSettings.model_fields)
    assert load(["build_server"], shown["plugin_settings"]).errors == {}
    shown = tomllib.loads(block("toml", "plugin_settings.http"))
    assert load(["http"], {"http": {**shown["plugin_settings"]["http"], "ca_file": None}}).errors == {}


async def test_every_kind_of_fault_on_the_page_is_one(loopback: SshTarget) -> None:
    from proctor_agent.ssh import faults

    kinds = {value for name, value in vars(faults).items() if name.isupper()}
    named = set(
        re.findall(r"`([a-z]+(?:_[a-z]+)+)`", PAGE.read_text().partition("A target that cannot")[2].partition("##")[0])
    )
    assert named <= kinds
    assert Targets({}).default is None
