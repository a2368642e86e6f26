"""The loopback SSH server: who is let in, and that a command's streams, signals and end arrive as they are."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from proctor_cli.local.recovery import marked
from proctor_cli.local.sshd import LoopbackSshd, make_keys
from proctor_cli.local.target import SshTarget
from support.processes import free_port, is_alive
from support.wait import eventually


@pytest.fixture
def mark(tmp_path: Path) -> str:
    return str(tmp_path)


@pytest.fixture
async def target(tmp_path: Path, mark: str) -> AsyncIterator[SshTarget]:
    folder = tmp_path / "ssh"
    folder.mkdir()
    port = free_port()
    server = LoopbackSshd(folder, port, mark)
    await server.start()
    yield make_keys(folder, port)
    await server.close()
    assert marked(mark) == []


def _connect(target: SshTarget, **other: object) -> Any:
    how: dict[str, object] = {
        "username": target.user,
        "client_keys": [str(target.key)],
        "known_hosts": str(target.known_hosts),
        "config": None,
    }
    return asyncssh.connect("127.0.0.1", target.port, **{**how, **other})


async def test_streams_and_exit_code(target: SshTarget) -> None:
    async with _connect(target) as connection:
        done = await connection.run("printf out; printf err >&2; exit 3", encoding=None)
        assert (done.stdout, done.stderr, done.exit_status) == (b"out", b"err", 3)
        # One stream's end is not the other's.
        done = await connection.run("exec >&-; sleep 0.2; printf late >&2", encoding=None)
        assert (done.stdout, done.stderr, done.exit_status) == (b"", b"late", 0)


async def test_bytes_arrive_as_they_are(target: SshTarget) -> None:
    content = os.urandom(3_000_000)
    async with _connect(target) as connection:
        done = await connection.run("cat", input=content, encoding=None)
        assert done.stdout == content
        done = await connection.run("head -c 10000000 /dev/zero | tr '\\0' a", encoding=None)
        assert done.stdout == b"a" * 10_000_000


async def test_a_command_that_does_not_read_ends(target: SshTarget) -> None:
    async with _connect(target) as connection, asyncio.timeout(10):
        done = await connection.run("exit 7", input=b"x" * 1_000_000, encoding=None)
        assert done.exit_status == 7


async def test_signals_go_to_the_process_group(target: SshTarget, mark: str) -> None:
    async with _connect(target) as connection, asyncio.timeout(20):
        process = await connection.create_process("sleep 60 & sleep 60", encoding=None)
        await eventually(lambda: len(marked(mark)) == 3, 5, "the shell and its two children")
        process.stdin.write_eof()
        process.send_signal("TERM")
        await process.wait()
        assert process.exit_signal is not None
        assert process.exit_signal[0] == "TERM"
        await eventually(lambda: marked(mark) == [], 5, "the end of the group")


async def test_a_signal_after_the_end_hurts_nobody(target: SshTarget) -> None:
    async with _connect(target) as connection, asyncio.timeout(20):
        process = await connection.create_process("setsid sleep 1 & echo $$; exit 0", encoding=None)
        shell = int(await process.stdout.readline())
        await eventually(lambda: not is_alive(shell), 5, "the shell's end")
        for _ in range(3):  # while a grandchild still holds the streams
            process.send_signal("INT")
        assert (await process.wait()).exit_status == 0
        assert (await connection.run("echo fine", encoding=None)).stdout == b"fine\n"


async def test_a_closed_channel_leaves_the_command_alone(target: SshTarget, mark: str) -> None:
    async with _connect(target) as connection:
        await connection.create_process("exec sleep 60", encoding=None)  # exec: not every shell does it by itself
        await eventually(lambda: len(marked(mark)) == 1, 5, "the command")
    left = marked(mark)
    assert len(left) == 1
    os.kill(left[0].pid, signal.SIGKILL)


async def test_its_own_session_and_a_plain_environment(target: SshTarget) -> None:
    async with _connect(target) as connection:
        done = await connection.run("ps -o pid=,sid=,pgid= -p $$; env", encoding=None, env={"LC_X": "1", "EVIL": "1"})
    assert isinstance(done.stdout, bytes)
    first, *lines = done.stdout.decode().splitlines()
    assert len(set(first.split())) == 1
    names = {line.partition("=")[0] for line in lines}
    assert "LC_X" in names
    assert "EVIL" not in names
    assert not {name for name in names if name.startswith(("SSH_", "PYTEST"))}


async def test_sftp(target: SshTarget, tmp_path: Path) -> None:
    async with _connect(target) as connection, connection.start_sftp_client() as sftp:
        async with sftp.open(str(tmp_path / "file"), "wb") as file:
            await file.write(b"content")
        assert (tmp_path / "file").read_bytes() == b"content"


async def test_strangers_are_refused(target: SshTarget) -> None:
    stranger = asyncssh.generate_private_key("ssh-ed25519")
    for other in (
        {"client_keys": [stranger]},
        {"client_keys": None, "password": "x"},
        {"username": "another"},
    ):
        with pytest.raises(asyncssh.PermissionDenied):
            async with _connect(target, **other):
                pass


async def test_nothing_is_forwarded(target: SshTarget) -> None:
    async with _connect(target) as connection:
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_connection("127.0.0.1", target.port)
        with pytest.raises(asyncssh.ChannelListenError):
            await connection.start_server(lambda *_: None, "127.0.0.1", 0)
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.create_process(term_type="xterm")


def test_the_keys_are_made_once_and_private(tmp_path: Path) -> None:
    port = free_port()
    first = make_keys(tmp_path, port)
    content = first.known_hosts.read_text()
    assert make_keys(tmp_path, port) == first
    assert first.known_hosts.read_text() == content
    assert {p.stat().st_mode & 0o777 for p in tmp_path.iterdir() if p.is_file()} == {0o600}


async def test_it_listens_on_loopback_only(target: SshTarget) -> None:
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.2", target.port)


async def test_what_is_left_is_killed_at_its_end(tmp_path: Path) -> None:
    port, mark = free_port(), f"end-{tmp_path}"
    server = LoopbackSshd(tmp_path, port, mark)
    await server.start()
    target = make_keys(tmp_path, port)
    async with _connect(target) as connection:
        await connection.run("setsid sh -c 'trap \"\" TERM HUP; sleep 60 & sleep 60' >/dev/null 2>&1 </dev/null &")
        await eventually(lambda: len(marked(mark)) >= 2, 5, "the command's children")
        left = marked(mark)
        await server.close()
    assert not any(is_alive(process.pid) for process in left)
