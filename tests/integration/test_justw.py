"""justw before anything is installed, and once everything is. (That it installs is what ran this test.)"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# All that justw takes from the machine besides Python.
TOOLS = ("sh", "cat", "cksum", "date", "dirname", "grep", "ln", "mkdir", "mv", "rm", "sed", "sleep", "tail", "wc")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What justw looks at, without what it makes; the path has a space in it."""
    folder = tmp_path / "a clone"
    members = ("libs/*/pyproject.toml", "services/*/pyproject.toml")
    for pattern in ("justw", "justfile", ".ci/pytest", "requirements*.lock", *members):
        for path in ROOT.glob(pattern):
            target = folder / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    return folder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    return folder


def justw(clone: Path, path: Path, *words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [clone / "justw", *words],
        env={"PATH": str(path), **variables},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def add_program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def test_without_python_it_says_what_it_needs(clone: Path, path: Path) -> None:
    done = justw(clone, path, "demo")
    assert (done.returncode, done.stdout) == (1, "")
    assert "needs Python 3.11 or newer" in done.stderr


def test_an_old_python_is_named(clone: Path, path: Path) -> None:
    add_program(path, "python3", '[ "$1" = --version ] && echo "Python 3.9.2" || exit 1')
    done = justw(clone, path, "test")
    assert done.returncode == 1
    assert "found: Python 3.9.2" in done.stderr


def test_without_an_index_it_says_so(clone: Path, path: Path) -> None:
    (path / "python3").symlink_to(sys.executable)
    variables = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_NO_CACHE_DIR": "1"}
    done = justw(clone, path, "test", **variables)
    assert done.returncode == 1
    assert "Is a package index reachable?" in done.stderr


@pytest.fixture
def installed(clone: Path, path: Path) -> Path:
    """A clone whose stamp holds; `proctor` and `just` tell who they are and what they got."""
    (clone / ".venv/bin").mkdir(parents=True)
    (clone / ".venv/bin/python").symlink_to(sys.executable)
    (clone / ".venv/pyvenv.cfg").write_text("version = 3.11\n")
    add_program(clone / ".venv/bin", "proctor", 'echo "proctor $$ $*"')
    add_program(path, "just", 'echo "just $$ $*"')
    add_program(path, "uv", "echo uv 1.0")
    (clone / ".venv/.justw-stamp").write_text(justw(clone, path, "--stamp").stdout)
    return clone


@pytest.mark.parametrize("word", ["up", "demo"])
def test_nothing_is_left_between_the_caller_and_the_launcher(installed: Path, path: Path, word: str) -> None:
    with subprocess.Popen(
        [installed / "justw", word, "--data", "a b"], env={"PATH": str(path)}, stdout=subprocess.PIPE, text=True
    ) as process:
        said = process.communicate(timeout=20)[0]
    assert said == f"proctor {process.pid} {word} --data a b\n"


def test_any_other_word_is_a_recipe(installed: Path, path: Path) -> None:
    done = justw(installed, path, "unit", "-k", "x y")
    assert done.stderr == ""
    assert (
        done.stdout.split(maxsplit=2)[2]
        == f"--justfile {installed}/justfile --working-directory {installed} unit -k x y\n"
    )


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("unit", "tests/unit"),
        ("unit -x -k chunker", "tests/unit -x -k chunker"),
        ("unit -k docs", "tests/unit -k docs"),
        ("unit tests/unit/agent/test_core_spool.py -x", "tests/unit/agent/test_core_spool.py -x"),
        ("unit -k line tests/unit/agent", "-k line tests/unit/agent"),
        ("unit ./tests/unit/test_house.py::test_x[a b]", "./tests/unit/test_house.py::test_x[a b]"),
        ("integration", "tests/integration -n auto --dist worksteal"),
        ("integration -k sshd", "tests/integration -n auto --dist worksteal -k sshd"),
        ("integration tests/integration/api -n 2", "tests/integration/api -n 2"),
        ("e2e", "tests/e2e"),
        ("e2e tests/e2e/test_examples.py", "tests/e2e/test_examples.py"),
    ],
)
def test_a_path_stands_for_the_folder_of_a_recipe(clone: Path, path: Path, words: str, asked: str) -> None:
    """With the real just: the recipe runs a pytest that tells its arguments, one a line."""
    just = shutil.which("just", path=f"{ROOT / '.tools/bin'}:{os.environ['PATH']}")
    assert just is not None
    add_program(clone / ".venv/bin", "pytest", 'printf "%s\\n" "$@"')
    called = [word.replace("~", " ") for word in words.replace("a b", "a~b").split()]
    done = subprocess.run(
        [just, "--justfile", clone / "justfile", *called],
        env={"PATH": str(path), "JUSTW_READY": "1"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [word.replace("~", " ") for word in asked.replace("a b", "a~b").split()]


def test_a_changed_pin_is_installed(installed: Path, path: Path) -> None:
    lock = installed / "requirements.lock"
    lock.write_text(lock.read_text() + "\n")
    add_program(path, "uv", 'case "$*" in *--version*) ;; *) echo "uv $*" >&2; [ "$2" != sync ] || exit 1;; esac')
    done = justw(installed, path, "up")
    assert done.returncode == 1
    assert "installing requirements.lock failed" in done.stderr
    assert not (installed / ".venv/.justw-stamp").exists(), "the next call tries again"


def test_the_ci_scripts_are_sound() -> None:
    for script in (ROOT / "justw", *(ROOT / ".ci").iterdir()):
        assert os.access(script, os.X_OK), script
        shell = "bash" if "bash" in script.read_text().splitlines()[0] else "sh"
        assert subprocess.run([shell, "-n", script], check=False).returncode == 0


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("Say why\n\nBecause.\n# a comment\n", ""),
        ("ü" * 72 + "\n\nBecause.\n", ""),
        ("fixup! Say why\n", ""),
        ("x" * 73 + "\n\nBecause.\n", "the subject has 73 characters"),
        ("Say why\n", "a body that says why"),
        ("Say why\nBecause.\n", "an empty line"),
    ],
)
def test_a_commit_message_has_a_short_subject_and_a_body(tmp_path: Path, message: str, fault: str) -> None:
    file = tmp_path / "message"
    file.write_text(message)
    done = subprocess.run([ROOT / ".ci/commit-message", file], capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (not fault)
    assert fault in done.stderr
