"""Each distribution installs alone, and an agent host gets nothing that it does not need.

Wheels are built from this checkout and installed with the versions of requirements.lock, from uv's cache if it
has them all, else from the package index. Our own names are always bound to these wheels: the public index has a
`proctor-agent` that is somebody else's.
"""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from support.processes import VENV_BIN

ROOT = Path(__file__).parents[2]
MEMBERS = sorted(path.parent for part in ("libs", "services") for path in (ROOT / part).glob("*/pyproject.toml"))
VERSION = tomllib.loads((MEMBERS[0] / "pyproject.toml").read_text())["project"]["version"]
NEVER_ON_AGENT_HOSTS = ("fastapi", "uvicorn", "sqlalchemy", "asyncpg", "alembic", "proctor_controller", "proctor_api")


def find_uv() -> Path | None:
    candidates = (os.environ.get("JUSTW_UV"), ROOT / ".tools/bin/uv", shutil.which("uv"))
    return next((Path(path) for path in candidates if path and Path(path).exists()), None)


def run(*command: str | Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    return subprocess.run(
        [os.fspath(part) for part in command],
        env={**environment, "UV_PYTHON_DOWNLOADS": "never", **variables},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture(scope="module")
def uv() -> Path:
    found = find_uv()
    if found is None:
        pytest.skip("uv is not at hand (./justw fetches it)")
    return found


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    for member in MEMBERS:
        source = folder / "source" / member.name
        shutil.copytree(member, source, ignore=shutil.ignore_patterns("__pycache__", "dist"))
        built = subprocess.run(
            [VENV_BIN / "python", "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
            cwd=source,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert built.returncode == 0, built.stderr
    (folder / "own.txt").write_text(
        "".join(f"{path.name.split('-')[0].replace('_', '-')} @ {path.as_uri()}\n" for path in folder.glob("*.whl"))
    )
    return folder


def install(uv: Path, wheels: Path, environment: Path, requirement: str) -> Path:
    """Install into a new environment and give its Python."""
    made = run(uv, "venv", "-q", "--python", sys.executable, environment)
    assert made.returncode == 0, made.stderr
    python = environment / "bin/python"
    command: list[str | Path] = [uv, "pip", "install", "-q", "--python", python, "-c", wheels / "own.txt"]
    command += ["-c", ROOT / "requirements.lock", requirement]
    attempts: tuple[tuple[list[str], dict[str, str]], ...] = (
        (["--offline"], {}),
        ([], {}),
        ([], {"UV_SYSTEM_CERTS": "true", "UV_NATIVE_TLS": "true"}),
    )
    for options, variables in attempts:
        done = run(*command, *options, **variables)
        if done.returncode == 0:
            listed = run(uv, "pip", "list", "--python", python, "--format", "json").stdout
            ours = {item["name"]: item["version"] for item in json.loads(listed) if item["name"].startswith("proctor")}
            assert set(ours.values()) == {VERSION}, f"somebody else's package: {ours}"
            return python
    if any(sign in done.stderr for sign in ("Failed to fetch", "Failed to download", "error sending request")):
        pytest.skip("neither uv's cache nor the package index has the packages")
    raise AssertionError(done.stderr)


def test_an_agent_host_gets_the_agent_and_nothing_of_the_control_plane(uv: Path, wheels: Path, tmp_path: Path) -> None:
    python = install(uv, wheels, tmp_path / "env", "proctor-agent")
    probe = "import importlib.util as u, sys; print([n for n in sys.argv[1:] if u.find_spec(n)])"
    assert run(python, "-c", probe, *NEVER_ON_AGENT_HOSTS).stdout.strip() == "[]"
    starts: tuple[tuple[str | Path, ...], ...] = (
        (python, "-m", "proctor_agent"),
        (tmp_path / "env/bin/proctor-agent",),
    )
    for command in starts:
        answer = run(*command, "--help")
        assert answer.returncode == 0, answer.stderr
        assert "usage" in answer.stdout.lower()


@pytest.mark.parametrize(
    ("requirement", "module"),
    [
        ("proctor-common", "proctor_common.bus"),
        ("proctor-api", "proctor_api.main"),
        ("proctor-controller", "proctor_controller.main"),
        ("proctor", "proctor_cli.__main__"),
    ],
)
def test_a_distribution_works_alone(uv: Path, wheels: Path, tmp_path: Path, requirement: str, module: str) -> None:
    python = install(uv, wheels, tmp_path / "env", requirement)
    answer = run(python, "-c", f"import {module}")
    assert answer.returncode == 0, answer.stderr
