"""Commands over SSH against OpenSSH's sshd: host keys, ends, bytes, back-pressure, lost connections."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import psutil
import pytest

import support.sshd
from proctor_agent.attempt import Target
from proctor_agent.ssh import Command, SshFault, Targets
from proctor_common.states import Source
from support.processes import is_alive
from support.ssh_log import Printed, as_target, targets_for
from support.sshd import OpenSshServer, SshTarget, write_key
from support.wait import eventually


@pytest.fixture
async def lab(ssh_target: SshTarget) -> AsyncIterator[Targets]:
    targets = targets_for(ssh_target)
    yield targets
    await targets.close()


@contextlib.asynccontextmanager
async def reaching(target: Target) -> AsyncIterator[Targets]:
    targets = Targets({target.name: target})
    try:
        yield targets
    finally:
        await targets.close()


async def fault_of(target: Target) -> SshFault:
    async with reaching(target) as targets:
        with pytest.raises(SshFault) as caught:
            await targets.run(None, Command(["true"]), Printed().write)
    return caught.value


# -- host keys and accounts ------------------------------------------------------------------------------------------


async def test_an_unknown_host_key_is_refused_with_its_fingerprint(ssh_target: SshTarget, tmp_path: Path) -> None:
    fault = await fault_of(
        Target("lab", ssh_target.host, ssh_target.port, ssh_target.user, ssh_target.key, tmp_path / "none")
    )
    assert fault.kind == "host_key_unknown"
    assert "offered ssh-ed25519 SHA256:" in fault.message
    assert str(tmp_path / "none") in fault.message
    assert fault.data["expected"] == []


async def test_a_changed_host_key_is_refused_with_both_fingerprints(openssh_server: OpenSshServer) -> None:
    before = as_target(openssh_server.target)
    async with reaching(before) as targets:
        assert (await targets.run(None, Command(["true"]), Printed().write)).code == 0
    openssh_server.new_host_key()
    openssh_server.restart()
    fault = await fault_of(before)
    assert fault.kind == "host_key_changed"
    (expected,) = fault.data["expected"]
    assert expected.startswith("ssh-ed25519 SHA256:")
    assert fault.data["offered"].startswith("ssh-ed25519 SHA256:")
    assert expected != fault.data["offered"]
    assert expected in fault.message
    assert fault.data["offered"] in fault.message


async def test_a_host_that_has_only_a_key_of_another_kind_is_a_changed_host(
    ssh_target: SshTarget, tmp_path: Path
) -> None:
    known = tmp_path / "known"
    other = asyncssh.generate_private_key("ecdsa-sha2-nistp256").export_public_key().decode().strip()
    known.write_text(f"[{ssh_target.host}]:{ssh_target.port} {other}\n")
    fault = await fault_of(Target("lab", ssh_target.host, ssh_target.port, ssh_target.user, ssh_target.key, known))
    assert fault.kind == "host_key_changed"
    assert fault.data["offered"].startswith("ssh-ed25519 ")
    assert fault.data["expected"][0].startswith("ecdsa-sha2-nistp256 SHA256:")


@pytest.mark.parametrize(
    ("written", "kind", "says"),
    [
        ("\0\n", "host_key_unknown", "cannot be understood"),
        ("@revoked * {key}\n", "host_key_changed", "revoked"),
        ("[other.example]:22 {key}\n", "host_key_unknown", "offered ssh-ed25519 SHA256:"),
    ],
)
async def test_known_hosts_that_do_not_vouch_for_the_host_refuse_it(
    ssh_target: SshTarget, tmp_path: Path, written: str, kind: str, says: str
) -> None:
    known = tmp_path / "known"
    known.write_text(written.format(key=ssh_target.known_hosts.read_text().split(maxsplit=1)[1].strip()))
    fault = await fault_of(Target("lab", ssh_target.host, ssh_target.port, ssh_target.user, ssh_target.key, known))
    assert fault.kind == kind
    assert says in fault.message
    assert str(known) in fault.message


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 70, "\u2603" * 70])
async def test_a_host_that_cannot_be_looked_up_is_named(ssh_target: SshTarget, host: str) -> None:
    fault = await fault_of(Target("lab", host, 22, ssh_target.user, ssh_target.key, ssh_target.known_hosts))
    assert fault.kind == "target_unreachable"
    assert host in fault.message


async def test_a_key_that_the_account_does_not_know_is_denied(ssh_target: SshTarget, tmp_path: Path) -> None:
    write_key(tmp_path / "other")
    target = Target(
        "lab", ssh_target.host, ssh_target.port, ssh_target.user, tmp_path / "other", ssh_target.known_hosts
    )
    fault = await fault_of(target)
    assert fault.kind == "ssh_denied"
    assert "authorized_keys" in fault.message


@pytest.mark.parametrize("content", [None, b"not a key", b""])
async def test_a_key_file_that_cannot_be_used_is_named(
    ssh_target: SshTarget, tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    target = Target("lab", ssh_target.host, ssh_target.port, ssh_target.user, tmp_path / "key", ssh_target.known_hosts)
    fault = await fault_of(target)
    assert fault.kind == "ssh_key_unusable"
    assert str(tmp_path / "key") in fault.message


async def test_a_target_where_nobody_listens_is_named(ssh_target: SshTarget) -> None:
    fault = await fault_of(Target("lab", "127.0.0.1", 1, ssh_target.user, ssh_target.key, ssh_target.known_hosts))
    assert fault.kind == "target_unreachable"
    assert "127.0.0.1:1" in fault.message


async def test_an_unknown_target_names_those_that_are_known(lab: Targets) -> None:
    with pytest.raises(SshFault, match=r"no such target: nowhere \(known: lab\)") as caught:
        await lab.run("nowhere", Command(["true"]), Printed().write)
    assert caught.value.kind == "no_such_target"


# -- ends and bytes --------------------------------------------------------------------------------------------------


async def test_ends_bytes_and_values(lab: Targets) -> None:
    printed = Printed()
    words = ["a b", "", "'", '"$(id)`id`', "*", "\\", "line\nline", "日本語 😀", "--", "-n"]
    end = await lab.run(None, Command(["printf", "%s\\0", *words]), printed.write, printed.group_started)
    assert (end.code, end.signal) == (0, None)
    assert printed.out.split(b"\0")[:-1] == [word.encode() for word in words]
    assert len(printed.groups) == 1

    printed = Printed()
    env = {"ONE": "a\nb\n", "TWO": "'\\\" $x ü"}
    end = await lab.run(
        None,
        Command(
            ["sh", "-c", 'printf "%s|%s|%s|%s" "$ONE" "$TWO" "$PROCTOR_ATTEMPT" "$PWD"; exit 7'],
            env,
            cwd="/usr",
            marker="s.1",
        ),
        printed.write,
    )
    assert end.code == 7
    assert printed.out.decode() == "a\nb\n|'\\\" $x ü|s.1|/usr"

    printed = Printed()
    every = bytes(range(256)) * 10
    end = await lab.run(None, Command(["cat"], stdin=every), printed.write)
    assert printed.out == every

    printed = Printed()
    end = await lab.run(None, Command(["sh", "-c", "echo out; echo err >&2; kill -KILL $$"]), printed.write)
    assert (end.code, end.signal) == (None, "SIGKILL")
    assert (printed.out, printed.err) == (b"out\n", b"err\n")

    printed = Printed()
    end = await lab.run(None, Command(["no-such-program"]), printed.write)
    assert end.code == 127
    assert b"not found" in printed.err

    with pytest.raises(SshFault) as caught:
        await lab.run(None, Command(["true"], cwd="/no/such"), Printed().write)
    assert caught.value.kind == "no_such_directory"


async def test_secrets_are_not_seen_in_the_process_list(lab: Targets) -> None:
    printed = Printed()
    await lab.run(None, Command(["sh", "-c", "ps axww -o args"], {"TOKEN": "hunter2-in-env"}), printed.write)
    assert b"ps axww" in printed.out
    assert b"hunter2" not in printed.out


async def test_what_start_up_files_print_is_no_output_of_the_command(openssh_server: OpenSshServer) -> None:
    allowed = openssh_server.folder / "authorized_keys"
    key = allowed.read_text()
    allowed.write_text('command="echo Welcome; printf no-line-end; eval \\"$SSH_ORIGINAL_COMMAND\\"" ' + key)
    async with reaching(as_target(openssh_server.target)) as targets:
        printed = Printed()
        end = await targets.run(None, Command(["echo", "mine"]), printed.write)
        assert (end.code, printed.out, printed.system) == (0, b"mine\n", b"Welcome\nno-line-end")


async def test_an_account_that_may_not_run_commands_is_told_apart(openssh_server: OpenSshServer) -> None:
    allowed = openssh_server.folder / "authorized_keys"
    key = allowed.read_text()
    allowed.write_text('command="echo This account is not available; exit 1" ' + key)
    async with reaching(as_target(openssh_server.target)) as targets:
        printed = Printed()
        with pytest.raises(SshFault, match="did not start the command") as caught:
            await targets.run(None, Command(["true"]), printed.write)
        assert caught.value.kind == "not_started"
        assert printed.system == b"This account is not available\n"


# -- floods, limits, lost connections --------------------------------------------------------------------------------


async def test_a_flood_waits_for_its_reader_and_arrives_whole(lab: Targets) -> None:
    size = 100_000_000
    script = "echo $$ >&2; head -c 100000000 /dev/zero | tr '\\0' a | fold -w 99; echo done >&2"
    seen = {Source.STDOUT: 0, Source.STDERR: 0}
    lines = 0
    go_on = asyncio.Event()
    held = asyncio.Event()
    printed = Printed()

    async def sink(source: Source, data: bytes) -> None:
        nonlocal lines
        seen[source] += len(data)
        lines += data.count(b"\n") if source is Source.STDOUT else 0
        if seen[Source.STDOUT] > 1_000_000 and not go_on.is_set():
            held.set()
            await go_on.wait()

    me = psutil.Process()
    before = me.memory_info().rss
    run = asyncio.create_task(lab.run(None, Command(["sh", "-c", script]), sink, printed.group_started))
    await asyncio.wait_for(held.wait(), 20)
    # The program must come to a stand: what it has written is what the reader took and what the channel may hold.
    last = -1

    async def stands() -> bool:
        nonlocal last
        children = psutil.Process(printed.groups[0].pgid).children()
        written = sum(child.io_counters().write_chars for child in children if child.name() == "fold")
        stood, last = written == last, written
        await asyncio.sleep(0.1)
        return stood and written > 0

    await eventually(stands, 10, "the flood to stand still")
    assert last < 12_000_000
    go_on.set()
    end = await asyncio.wait_for(run, 60)
    assert end.code == 0
    assert lines == -(-size // 99) - 1
    assert seen[Source.STDOUT] == size + lines
    assert me.memory_info().rss - before < 64 * 1024 * 1024


async def test_more_commands_than_a_connection_takes_open_another(
    openssh_server: OpenSshServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(support.sshd, "_CONFIG", support.sshd._CONFIG.replace("MaxSessions 1000", "MaxSessions 2"))
    openssh_server.restart()
    async with reaching(as_target(openssh_server.target)) as targets:
        ends = await asyncio.gather(
            *(
                targets.run(None, Command(["sh", "-c", "sleep 0.5; exit $1", "sh", str(n)]), Printed().write)
                for n in range(7)
            )
        )
        assert [end.code for end in ends] == list(range(7))
        assert openssh_server.log.count("Accepted publickey") == 4


async def test_a_cut_connection_is_an_unknown_end_and_the_next_command_connects_again(
    openssh_server: OpenSshServer,
) -> None:
    async with reaching(as_target(openssh_server.target)) as targets:
        printed = Printed()
        run = asyncio.create_task(targets.run(None, Command(["sh", "-c", "echo $PPID; sleep 60"]), printed.write))
        await eventually(lambda: printed.out.endswith(b"\n"))
        # Only the session's server: what it started lives on, as when a network is cut.
        os.kill(int(printed.out), signal.SIGKILL)
        with pytest.raises(SshFault) as caught:
            await asyncio.wait_for(run, 10)
        assert any("sleep 60" in line for line in openssh_server.sessions().values())
        assert caught.value.kind == "connection_lost"
        openssh_server.kill()
        with pytest.raises(SshFault) as caught:
            await targets.run(None, Command(["true"]), Printed().write)
        assert caught.value.kind == "target_unreachable"
        openssh_server.start()
        assert (await targets.run(None, Command(["true"]), Printed().write)).code == 0


async def test_a_cancelled_wait_closes_the_channel_and_keeps_the_connection(openssh_server: OpenSshServer) -> None:
    async with reaching(as_target(openssh_server.target)) as targets:
        printed = Printed()
        run = asyncio.create_task(
            targets.run(None, Command(["sh", "-c", "echo $$; exec sleep 60"]), printed.write, printed.group_started)
        )
        await eventually(lambda: printed.out.endswith(b"\n"))
        assert printed.groups[0].pgid == int(printed.out)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert is_alive(int(printed.out))
        assert (await targets.run(None, Command(["true"]), Printed().write)).code == 0
        assert openssh_server.log.count("Accepted publickey") == 1
        os.kill(int(printed.out), signal.SIGKILL)


async def test_what_was_read_before_the_cut_still_arrives(openssh_server: OpenSshServer) -> None:
    async with reaching(as_target(openssh_server.target)) as targets:
        printed = Printed()
        held, go_on = asyncio.Event(), asyncio.Event()

        async def sink(source: Source, data: bytes) -> None:
            await printed.write(source, data)
            if source is Source.STDOUT:
                held.set()
                await go_on.wait()

        run = asyncio.create_task(
            targets.run(None, Command(["head", "-c", "5000000", "/dev/zero"]), sink, printed.group_started)
        )
        await asyncio.wait_for(held.wait(), 10)
        head = psutil.Process(printed.groups[0].pgid)
        await eventually(lambda: head.io_counters().write_chars > 1_500_000, 10, "the program to fill the window")
        os.kill(head.ppid(), signal.SIGKILL)
        await asyncio.wait_for(targets._endpoints["lab"].pool._links[0].connection.wait_closed(), 10)
        go_on.set()
        with pytest.raises(SshFault) as caught:
            await asyncio.wait_for(run, 10)
        assert caught.value.kind == "connection_lost"
        assert len(printed.out) > 1_200_000


async def test_connections_are_made_before_they_are_needed_and_again_when_lost(
    openssh_server: OpenSshServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proctor_agent.ssh.targets.WARM_LOOK_S", 0.1)
    async with reaching(as_target(openssh_server.target)) as targets:
        targets.start()
        await eventually(lambda: openssh_server.log.count("Accepted publickey") == 1)
        printed = Printed()
        await targets.run(None, Command(["sh", "-c", "echo $PPID"]), printed.write)
        assert openssh_server.log.count("Accepted publickey") == 1
        os.kill(int(printed.out), signal.SIGKILL)
        await eventually(lambda: openssh_server.log.count("Accepted publickey") == 2)
        assert (await targets.run(None, Command(["true"]), Printed().write)).code == 0
        assert openssh_server.log.count("Accepted publickey") == 2
