"""Fixtures of every test. Servers that a test only uses are shared by its session and isolated by name
(an account of NATS, a database of PostgreSQL); servers that a test kills are its own."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from support.deadline import set_deadline
from support.lending import LentDatabases
from support.loopback import LoopbackServer
from support.nats import NatsAccount, NatsAccounts, NatsServer
from support.postgres import Database, PostgresServer, migrated_by
from support.processes import Processes
from support.sshd import OpenSshServer, SshTarget, find_sshd

# `test` runs a fixed sample of what hypothesis can find, the same every time; `soak` looks further.
settings.register_profile(
    "sample", max_examples=60, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("soak", max_examples=3000, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="run long suites in full instead of a fixed sample")
    parser.addoption("--openstack", action="store_true", help="use the OpenStack that OS_* or clouds.yaml name")


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("soak" if config.getoption("--soak") else "sample")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: a test waits for its processes and servers half of its time."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    limit = float(config.getoption("timeout", None) or config.getini("timeout") or 0)
    for item in items:
        set_deadline(item, limit)
    if not config.getoption("--soak"):
        for item in items:
            if item.get_closest_marker("soak"):
                item.add_marker(pytest.mark.skip(reason="runs for long: just soak"))
    if not config.getoption("--openstack"):
        for item in items:
            if item.get_closest_marker("openstack"):
                item.add_marker(pytest.mark.skip(reason="makes volumes in a real cloud: just openstack"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name every test that was skipped, and why."""
    skipped = terminalreporter.stats.get("skipped", [])
    terminalreporter.section(f"skipped: {len(skipped)}")
    for report in sorted(skipped, key=lambda report: str(report.nodeid)):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        terminalreporter.write_line(f"{report.nodeid}: {str(reason).removeprefix('Skipped: ')}")


@pytest.fixture
def long_run(request: pytest.FixtureRequest) -> bool:
    """Whether a test that can go on for long should: it runs its fixed sample otherwise."""
    return bool(request.config.getoption("--soak"))


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Starts child processes; ends all of them, with their descendants, when the test is over."""
    folder = tmp_path / "processes"
    folder.mkdir()
    started = Processes(folder)
    yield started
    started.end_all()


@pytest.fixture(scope="session")
def nats_accounts() -> Iterator[NatsAccounts]:
    accounts = NatsAccounts()
    yield accounts
    accounts.close()


@pytest.fixture
def nats(nats_accounts: NatsAccounts) -> NatsAccount:
    """A fresh account with JetStream on the shared server. Not to be killed."""
    return nats_accounts.take()


@pytest.fixture
def nats_server() -> Iterator[NatsServer]:
    """A server of the test's own, without authorisation, to be killed, paused and restarted at will."""
    server = NatsServer()
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The shared cluster. Not to be killed."""
    server = PostgresServer(durable=False)
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[Database]:
    """An empty database of the test's own."""
    made = postgres.create_database()
    yield made
    postgres.drop_database(made)


@pytest.fixture(scope="session")
def _control_databases(postgres: PostgresServer) -> LentDatabases:
    from proctor_controller import context as control

    return LentDatabases(postgres, "control", migrated_by(control.CHAIN))


@pytest.fixture
def control_database(_control_databases: LentDatabases) -> Iterator[Database]:
    """A database of the test's own, as the controller's migrations leave it."""
    made = _control_databases.lend()
    yield made
    _control_databases.give_back(made)


@pytest.fixture(scope="session")
def _api_databases(postgres: PostgresServer) -> LentDatabases:
    from proctor_api import migrations as access

    return LentDatabases(postgres, "api", migrated_by(access.CHAIN))


@pytest.fixture
def api_database(_api_databases: LentDatabases) -> Iterator[Database]:
    """A database of the test's own, as the api's migrations leave it."""
    made = _api_databases.lend()
    yield made
    _api_databases.give_back(made)


@pytest.fixture
def postgres_server() -> Iterator[PostgresServer]:
    """A cluster of the test's own, to be killed and restarted at will."""
    server = PostgresServer()
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture(scope="session")
def _openssh() -> Iterator[OpenSshServer]:
    if find_sshd() is None:
        pytest.skip("OpenSSH's sshd is not installed (Debian: openssh-server)")
    server = OpenSshServer()
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture
def openssh(_openssh: OpenSshServer) -> SshTarget:
    """The shared OpenSSH server. Not to be killed."""
    return _openssh.target


@pytest.fixture
def openssh_server() -> Iterator[OpenSshServer]:
    """An OpenSSH server of the test's own, to be killed, restarted and given another host key."""
    if find_sshd() is None:
        pytest.skip("OpenSSH's sshd is not installed (Debian: openssh-server)")
    server = OpenSshServer()
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture(scope="session")
def _loopback() -> Iterator[LoopbackServer]:
    server = LoopbackServer().start()
    yield server
    server.close()


@pytest.fixture
def loopback(_loopback: LoopbackServer) -> SshTarget:
    """The launcher's SSH server, always at hand, shared. Not to be killed."""
    return _loopback.target


@pytest.fixture(params=["loopback", "openssh"])
def ssh_target(request: pytest.FixtureRequest) -> SshTarget:
    """Each test twice: against the launcher's SSH server, and against OpenSSH's where it is installed."""
    target: SshTarget = request.getfixturevalue(request.param)
    return target


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller's own PROCTOR_* settings must not reach a test."""
    for name in [name for name in os.environ if name.startswith("PROCTOR_")]:
        monkeypatch.delenv(name)
