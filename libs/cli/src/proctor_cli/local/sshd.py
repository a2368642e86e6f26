"""The loopback SSH server: the target of the local agents. Besides the agent's ssh the only importer of asyncssh.

It treats a command as OpenSSH's sshd does: runs it with the user's shell in its own session, reports its end at once,
closes the channel when nothing holds its output open, leaves it alone when its channel closes, and sends signals to its
process group. One key is accepted; there is no password, forwarding or terminal.
"""

import asyncio
import contextlib
import os
import pwd
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import asyncssh
from asyncssh.packet import Boolean, String, UInt32

from proctor_cli.init.files import keep_once, replace
from proctor_cli.local.faults import CannotStart
from proctor_cli.local.recovery import MARK, kill_marked
from proctor_cli.local.target import HOST, SshTarget, target_in, user_name

ACCEPTED_ENVIRONMENT = ("LANG", "LC_")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SIGNALS = {name.removeprefix("SIG"): number for name, number in signal.Signals.__members__.items()}


class LoopbackSshd:
    """One server on 127.0.0.1; its keys are made once in ``folder``. Every process that it starts gets ``mark``."""

    def __init__(self, folder: Path, port: int, mark: str) -> None:
        self._folder = folder
        self._port = port
        self._mark = mark
        self._acceptor: asyncssh.SSHAcceptor | None = None

    async def start(self) -> None:
        """Listen. Raises CannotStart."""
        target = make_keys(self._folder, self._port)
        client = asyncssh.read_private_key(target.key).export_public_key().decode()
        try:
            self._acceptor = await asyncssh.listen(
                HOST,
                self._port,
                server_host_keys=[self._folder / "host_key"],
                authorized_client_keys=asyncssh.import_authorized_keys(client),
                server_factory=lambda: _OneUser(target.user, self._mark),
                password_auth=False,
                kbdint_auth=False,
                host_based_auth=False,
                gss_host=None,
                agent_forwarding=False,
                x11_forwarding=False,
                allow_pty=False,
                allow_scp=False,
                line_editor=False,
                encoding=None,
                compression_algs=None,
                keepalive_interval=0,
                config=[],
            )
        except OSError as fault:
            raise CannotStart(f"cannot listen on {HOST}:{self._port} for SSH: {fault.strerror}") from None

    async def close(self) -> None:
        """Stop listening, close all connections, and kill what the commands left."""
        if self._acceptor is not None:
            self._acceptor.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await self._acceptor.wait_closed()
        await asyncio.to_thread(kill_marked, self._mark)


async def _serve(process: "asyncssh.SSHServerProcess[bytes]", mark: str) -> None:
    stdin, stdout, stderr = os.pipe(), os.pipe(), os.pipe()
    try:
        child = subprocess.Popen(  # noqa: ASYNC220 - a vfork: a millisecond
            _argv(process.command),
            stdin=stdin[0],
            stdout=stdout[1],
            stderr=stderr[1],
            env=_environment(process.env, mark),
            cwd=_home(),
            start_new_session=True,
        )
    except (OSError, ValueError) as fault:
        for descriptor in (stdin[1], stdout[0], stderr[0]):
            os.close(descriptor)
        process.stderr.write(f"{fault}\n".encode())
        process.exit(126)
        return
    finally:
        for descriptor in (stdin[0], stdout[1], stderr[1]):
            os.close(descriptor)
    process.set_redirect_pid(child.pid)
    # asyncssh's own redirection of standard input loses its end (tried: 70 of 300 KB).
    feeding = asyncio.create_task(_feed(process, stdin[1]), name=f"stdin of {child.pid}")
    try:
        # From pipe to channel inside asyncssh. The end of one stream is not the end of the other.
        await process.redirect(stdout=stdout[0], stderr=stderr[0], bufsize=0, send_eof=False)
        code = await _ended(child)
    finally:
        feeding.cancel()
    _tell_end(process.channel, code)
    await _until_let_go(process)
    process.close()


def _tell_end(channel: "asyncssh.SSHServerChannel[bytes]", code: int) -> None:
    """Report the command's end but leave the channel open, which asyncssh's own ``exit`` would close."""
    if channel.is_closing():
        return
    if code < 0:
        name = signal.Signals(-code).name.removeprefix("SIG")
        channel._send_request(b"exit-signal", String(name), Boolean(False), String(""), String(""))
    else:
        channel._send_request(b"exit-status", UInt32(code))


async def _until_let_go(process: "asyncssh.SSHServerProcess[bytes]") -> None:
    """Wait until nothing holds the command's output open, or the channel is closed."""
    waits = {asyncio.create_task(_drained(process)), asyncio.create_task(process.channel.wait_closed())}
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waits:
            each.cancel()


async def _drained(process: "asyncssh.SSHServerProcess[bytes]") -> None:
    with contextlib.suppress(asyncssh.Error, OSError):
        await process.stdout.drain()
        await process.stderr.drain()


class _Session(asyncssh.SSHServerProcess[bytes]):
    """A command's channel: signals go to the command's process group, even after its end."""

    def signal_received(self, name: str) -> None:
        """Forward it; ignore a name that is no signal here."""
        self._send(_SIGNALS.get(name))

    def break_received(self, msec: int) -> bool:
        """A break is an interrupt."""
        self._send(signal.SIGINT)
        return True

    def _send(self, number: signal.Signals | None) -> None:
        if number is not None and self.redirect_pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.redirect_pid, number)


class _OneUser(asyncssh.SSHServer):
    """Only the account that runs the server; only sessions, which is asyncssh's default."""

    def __init__(self, user: str, mark: str) -> None:
        self._user = user
        self._mark = mark

    def begin_auth(self, username: str) -> bool:
        """Every user must show the key, and other users have none."""
        if username != self._user:
            raise asyncssh.PermissionDenied(f"this server is {self._user}'s only")
        return True

    def session_requested(self) -> asyncssh.SSHServerSession[bytes]:
        """A command, or SFTP."""
        return _Session(lambda process: _serve(process, self._mark), _open_sftp, 3, False)


def make_keys(folder: Path, port: int) -> SshTarget:
    """Make the server's key and the client's once; write known_hosts for this port. Raises CannotKeep."""
    target = target_in(folder, port)
    host = keep_once(folder / "host_key", lambda: _new_key("proctor local target"))
    keep_once(target.key, lambda: _new_key("proctor local agents"))
    public = asyncssh.import_private_key(host).export_public_key().decode().strip()
    replace(target.known_hosts, f"[{HOST}]:{port} {public}\n")
    return target


def _new_key(comment: str) -> bytes:
    return asyncssh.generate_private_key("ssh-ed25519", comment).export_private_key()


def _argv(command: str | None) -> list[str]:
    shell = _shell()
    return [shell, "-c", command] if command is not None else [shell]


def _shell() -> str:
    try:
        shell = pwd.getpwuid(os.geteuid()).pw_shell
    except KeyError:
        shell = os.environ.get("SHELL", "")
    usable = shell.startswith("/") and os.access(shell, os.X_OK) and not shell.endswith(("/nologin", "/false"))
    return shell if usable else "/bin/sh"


def _home() -> str:
    try:
        home = pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        home = os.environ.get("HOME", "/")
    return home if os.access(home, os.X_OK) and Path(home).is_dir() else "/"


def _environment(asked: Mapping[Any, Any], mark: str) -> dict[str, str]:
    user = user_name()
    own = {
        "HOME": _home(),
        "USER": user,
        "LOGNAME": user,
        "SHELL": _shell(),
        "PATH": os.environ.get("PATH", PATH),
        "LANG": "C.UTF-8",
    }
    accepted = {_text(k): _text(v) for k, v in asked.items() if _text(k).startswith(ACCEPTED_ENVIRONMENT)}
    return {**own, **accepted, MARK: mark}


def _text(value: Any) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


async def _ended(child: "subprocess.Popen[bytes]") -> int:
    """Wait for the command's own process; its return code."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    descriptor = os.pidfd_open(child.pid)
    try:
        loop.add_reader(descriptor, _set, ended)
        await ended
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return child.wait()


async def _feed(process: "asyncssh.SSHServerProcess[bytes]", pipe: int) -> None:
    """Copy from the channel to standard input, until either ends."""
    os.set_blocking(pipe, False)
    try:
        while data := await process.stdin.read(65536):
            await _write(pipe, data)
    except (asyncssh.Error, OSError):
        pass  # the channel is gone, or the command reads no more
    finally:
        os.close(pipe)


async def _write(pipe: int, data: bytes) -> None:
    loop = asyncio.get_running_loop()
    while data:
        try:
            data = data[os.write(pipe, data) :]
        except BlockingIOError:
            room: asyncio.Future[None] = loop.create_future()
            loop.add_writer(pipe, _set, room)
            try:
                await room
            finally:
                loop.remove_writer(pipe)


def _set(happened: "asyncio.Future[None]") -> None:
    if not happened.done():
        happened.set_result(None)


def _open_sftp(channel: Any) -> asyncssh.SFTPServer:
    return asyncssh.SFTPServer(channel)
