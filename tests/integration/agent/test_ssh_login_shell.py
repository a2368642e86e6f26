"""What a connection knows of the login shell at its other end, against OpenSSH's sshd with real start-up files."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

import support.sshd
from proctor_agent.ssh import Command, Exit, SshFault, Targets
from proctor_agent.ssh.login_shell import LoginShell
from proctor_agent.ssh.pool import Link
from proctor_agent.ssh.probe import ask
from support.ssh_log import Printed, as_target
from support.sshd import OpenSshServer
from support.wait import eventually

FOR_PROBES = "case $BASH_EXECUTION_STRING in *readlink*|*'type -t'*) %s;; esac\n"
"""A start-up file's text for probes only; everything else is a command."""


class Account:
    """An account whose login shell is bash and reads a start-up file with each command."""

    def __init__(self, server: OpenSshServer, startup: Path) -> None:
        self.server = server
        self.startup = startup
        self.targets = Targets({"lab": as_target(server.target)})

    async def run(self, command: Command, code: int | None = 0) -> Printed:
        printed = Printed()
        end: Exit = await self.targets.run("lab", command, printed.write, printed.group_started)
        assert end.code == code, printed.pieces
        return printed

    @property
    def link(self) -> Link:
        return self.targets._endpoints["lab"].pool._links[0]

    async def asked(self) -> LoginShell | None:
        """What the login shell is taken for, when it has been asked."""
        await self.settled()
        assert not self.link.is_unasked
        return self.link.shell

    async def settled(self) -> None:
        await eventually(lambda: self.targets._endpoints["lab"].waiting._opening is None)

    async def alone(self, command: Command, code: int | None = 0) -> Printed:
        """A command with a shell of its own."""
        return await self.run(replace(command, stdin=b""), code)


@pytest.fixture
def server(openssh_server: OpenSshServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> OpenSshServer:
    """sshd that tells bash to read a start-up file for each command."""
    monkeypatch.setattr(
        support.sshd, "_CONFIG", support.sshd._CONFIG.replace("SHLVL=1", f"SHLVL=1 BASH_ENV={tmp_path}/rc")
    )
    openssh_server.restart()
    return openssh_server


@pytest.fixture
async def account(server: OpenSshServer, tmp_path: Path) -> AsyncIterator[Account]:
    account = Account(server, tmp_path / "rc")
    yield account
    await account.targets.close()


async def test_the_shell_is_known_after_the_first_command_and_runs_the_next_itself(account: Account) -> None:
    account.startup.write_text("echo Welcome\n")
    shows = Command(["sh", "-c", "env -0; umask; ulimit -a; ls /proc/self/fd; pwd"], {"A": "b"}, marker="s.1")
    first = await account.alone(shows)
    assert await account.asked() is LoginShell.BASH
    waiting = account.targets._endpoints["lab"].waiting._ready
    assert waiting is not None and waiting.session.shell is LoginShell.BASH
    handed = await account.run(shows)
    await account.settled()
    alone = await account.alone(shows)
    for printed in (handed, alone):
        assert (printed.system, printed.err) == (b"Welcome\n", b"")
        assert sorted(printed.out.split(b"\0")) == sorted(first.out.split(b"\0"))
        assert len(printed.groups) == 1 and printed.groups[0].started > 0


async def test_what_the_shell_that_waits_cannot_export_is_left_to_sh(account: Account) -> None:
    account.startup.write_text("")
    await account.run(Command(["true"]))
    assert await account.asked() is LoginShell.BASH
    waiting = account.targets._endpoints["lab"].waiting._ready
    assert waiting is not None
    printed = await account.run(Command(["/usr/bin/env", "-0"], {"SHLVL": "7", "UID": "x"}))
    assert {b"SHLVL=7", b"UID=x"} <= set(printed.out.split(b"\0"))
    assert account.targets._endpoints["lab"].waiting._ready is waiting


@pytest.mark.parametrize(
    "startup",
    ['printf() { builtin printf "$@"; }', "trap : TERM", "set -u", "export -f no_such", "export NOW=$RANDOM$RANDOM"],
    ids=["function", "trap", "option", "fault", "variable"],
)
async def test_a_shell_that_start_up_files_have_changed_is_not_known(account: Account, startup: str) -> None:
    known = startup.startswith("export -f")  # It is an error message, no more.
    account.startup.write_text(startup + "\n")
    await account.run(Command(["true"]))
    assert await account.asked() is (LoginShell.BASH if known else None)
    printed = await account.run(Command(["printf", "%s", "a b"], {"A": "b"}))
    assert (printed.out, printed.system) == (b"a b", b"")


async def test_start_up_files_that_change_afterwards_do_no_harm(account: Account) -> None:
    account.startup.write_text("")
    await account.run(Command(["true"]))
    assert await account.asked() is LoginShell.BASH
    account.startup.write_text("set -eu; printf() { echo nasty; }; exec() { echo nasty; }; read() { echo nasty; }\n")
    for _ in range(2):
        printed = await account.alone(Command(["printf", "%s", "a b"], {"A": "b"}))
        assert (printed.out, printed.system, len(printed.groups)) == (b"a b", b"", 1)
    assert account.link.shell is LoginShell.BASH
    # What it cannot help against starts nothing, and is not trusted again.
    account.startup.write_text("printf() { echo nasty; }; readonly -f printf\n")
    with pytest.raises(SshFault) as caught:
        await account.alone(Command(["touch", str(account.startup.parent / "touched")]))
    assert caught.value.kind == "not_started"
    assert not (account.startup.parent / "touched").exists()
    assert account.link.shell is None
    assert (await account.alone(Command(["printf", "%s", "a b"]))).out == b"a b"
    assert not account.link.is_unasked


async def test_a_shell_that_waits_and_cannot_start_its_command_is_replaced(account: Account) -> None:
    account.startup.write_text("")
    await account.run(Command(["true"]))
    assert await account.asked() is LoginShell.BASH
    account.startup.write_text("case $BASH_EXECUTION_STRING in *_prv*) read -r told; exit 3;; esac\n")
    await account.run(Command(["true"]))
    await account.settled()
    printed = await account.run(Command(["printf", "mine"]))
    assert printed.out == b"mine"
    assert account.link.shell is None


async def test_what_it_said_becomes_old_and_is_asked_again(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    account.startup.write_text("")
    await account.run(Command(["true"]))
    assert await account.asked() is LoginShell.BASH
    account.startup.write_text("set -u\n")
    await account.run(Command(["true"]))
    assert await account.asked() is LoginShell.BASH
    monkeypatch.setattr("proctor_agent.ssh.pool.KNOWN_S", 0.0)
    assert account.link.shell is None
    monkeypatch.setattr("proctor_agent.ssh.pool.KNOWN_S", 60.0)
    account.link._learnt_at = time.monotonic() - 61
    await account.run(Command(["true"]))
    assert await account.asked() is None


async def test_another_connection_is_asked_for_itself(account: Account) -> None:
    account.startup.write_text("")
    await account.run(Command(["true"]))
    assert await account.asked() is LoginShell.BASH
    account.startup.write_text("set -u\n")
    account.link.connection.abort()
    await account.link.connection.wait_closed()
    await account.run(Command(["true"]))
    assert await account.asked() is None


async def test_a_connection_that_is_made_in_advance_is_asked_in_advance(account: Account) -> None:
    account.startup.write_text("")
    account.targets.start()
    await eventually(lambda: "lab" in account.targets._endpoints and account.targets._endpoints["lab"].pool.is_warm)
    await eventually(lambda: account.link.shell is LoginShell.BASH)
    assert account.targets._endpoints["lab"].waiting._ready is None
    await eventually(lambda: account.targets._endpoints["lab"].pool.is_idle)


async def test_nothing_is_asked_where_the_settings_allow_commands_only(account: Account) -> None:
    account.startup.write_text("")
    target = replace(as_target(account.server.target), waiting_shell=False)
    account.targets = Targets({"lab": target})
    await account.run(Command(["true"]))
    await account.settled()
    assert account.link.is_unasked and account.link.shell is None


async def test_a_question_that_hangs_delays_no_command_and_gives_its_session_back(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proctor_agent.ssh.probe.LIMIT_S", 60.0)
    account.startup.write_text(FOR_PROBES % "echo hangs; exec sleep 60")
    await account.run(Command(["true"]))

    def hangs() -> bool:
        return any("sleep 60" in line for line in account.server.sessions().values())

    await eventually(hangs)
    printed = await account.run(Command(["printf", "mine"]))
    assert (printed.out, printed.system, hangs()) == (b"mine", b"", True)
    assert account.server.log.count("Accepted publickey") == 1
    account.link.connection.abort()
    await account.link.connection.wait_closed()
    await account.settled()
    monkeypatch.setattr("proctor_agent.ssh.probe.LIMIT_S", 0.2)
    await account.run(Command(["true"]))
    assert await account.asked() is None
    # OpenSSH sends no signals to what root has started, and says so.
    await eventually(lambda: not hangs() or "session signalling requires" in account.server.log)
    await eventually(lambda: account.link.channels <= 1)
    assert (await account.run(Command(["printf", "again"]))).out == b"again"
    assert account.server.log.count("Accepted publickey") == 2


async def test_a_question_that_is_refused_harms_nobody(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """sshd takes one session a connection: while a command has it, or a question, there is no other."""
    config = support.sshd._CONFIG.replace("MaxSessions 1000", "MaxSessions 1")
    monkeypatch.setattr(support.sshd, "_CONFIG", config)
    account.server.restart()
    account.startup.write_text(FOR_PROBES % "sleep 0.3")
    codes = await asyncio.gather(*(account.run(Command(["sh", "-c", "sleep 0.1; echo $$"])) for _ in range(3)))
    assert all(printed.out.strip().isdigit() for printed in codes)
    assert account.server.log.count("Accepted publickey") == 3
    assert (await account.run(Command(["printf", "mine"]))).out == b"mine"
    await account.settled()
    assert (await account.run(Command(["printf", "mine"]))).out == b"mine"


async def test_a_question_for_which_there_is_no_session_is_not_repeated(
    openssh_server: OpenSshServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = support.sshd._CONFIG.replace("MaxSessions 1000", "MaxSessions 1")
    monkeypatch.setattr(support.sshd, "_CONFIG", config)
    openssh_server.restart()
    account = Account(openssh_server, tmp_path / "rc")
    try:
        pool = account.targets._endpoint(account.targets.find(None)).pool
        await pool.warm()
        stranger = await account.link.connection.create_process("sleep 60")
        await ask(pool)
        assert (account.link.shell, account.link.is_unasked, account.link.channels) == (None, False, 0)
        stranger.close()
    finally:
        await account.targets.close()


@pytest.mark.parametrize("shell", ["dash", "busybox sh", "zsh", "fish", "ksh", "mksh", "tcsh"])
async def test_an_account_with_another_login_shell(openssh_server: OpenSshServer, shell: str, tmp_path: Path) -> None:
    name, *rest = shell.split()
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"{name} is not installed")
    start = " ".join([program, *rest])
    allowed = openssh_server.folder / "authorized_keys"
    # A forced command stands for an entry in /etc/passwd: sshd has the shell read the line that the client sent.
    allowed.write_text(f'command="exec {start} -c \\"$SSH_ORIGINAL_COMMAND\\"" ' + allowed.read_text())
    account = Account(openssh_server, tmp_path / "rc")
    try:
        await account.run(Command(["true"]))
        assert await account.asked() is (LoginShell.DASH if shell == "dash" else None)
        words = ["a b", "", "'", '"$(id)`id`', "*", "日本語 😀", "--", "-n"]
        for command in (Command(["printf", "%s|", *words]), Command(["printf", "%s|", *words], cwd="/usr")):
            printed = await account.run(command)
            assert printed.out.split(b"|")[:-1] == [word.encode() for word in words]
            assert (printed.system, len(printed.groups)) == (b"", 1)
    finally:
        await account.targets.close()
