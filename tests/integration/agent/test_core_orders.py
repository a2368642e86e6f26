"""Orders to an agent: accepted once, refused by name, cancelled and timed out with the tree gone."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from proctor_common.messages.base import decode
from proctor_common.messages.events import AttemptRef, StepFinished
from proctor_common.messages.orders import AttemptStanding, DrainOrder, StartAnswer, StartReply
from proctor_common.states import Source, StepResult
from support.agent import AgentWorld
from support.processes import command_line, is_alive
from support.sshd import OpenSshServer
from support.wait import eventually


async def test_a_command_from_order_to_end(world: AgentWorld) -> None:
    async with world.agent_here():
        order = world.shell("echo hi; echo oops >&2; exit 3")
        end = await world.run_to_end(order)
        assert (end.result, end.exit_code, end.output["stdout"]) == (StepResult.FAILED, 3, "hi\n")
        assert (end.run, end.token, end.tree_gone) == (order.run, order.token, None)
        log = await world.log_of(order, end)
        assert {(chunk.source, chunk.data) for chunk in log} == {(Source.STDOUT, b"hi\n"), (Source.STDERR, b"oops\n")}
        assert (end.lines, end.bytes) == (2, 8)
        assert end.started_at is not None
        assert end.finished_at is not None
        # The end is confirmed: nothing is kept of the attempt but its name.
        await eventually(lambda: not world.spooled(), 5, "the spool to be empty")
        assert (await world.query(order)).standing is AttemptStanding.CONFIRMED


async def test_a_repeated_order_starts_nothing(world: AgentWorld) -> None:
    async with world.agent_here():
        order = world.shell('echo x >>"$1"; sleep 0.3', str(world.folder / "ran"))
        replies = await asyncio.gather(*(world.start(order) for _ in range(5)))
        assert {reply.answer for reply in replies} == {StartAnswer.ACCEPTED}
        stale = order.model_copy(update={"token": "00000000-0000-7000-8000-000000000000"})
        assert (await world.start(stale)).answer is StartAnswer.STALE
        await world.end_of(order)
        assert (await world.start(order)).answer is StartAnswer.ACCEPTED
        await eventually(lambda: world.beats and not world.beats[-1].attempts, 5, "an idle heartbeat")
        assert (world.folder / "ran").read_text() == "x\n"


async def test_cancelled_before_it_came_it_never_starts(world: AgentWorld) -> None:
    async with world.agent_here():
        order = world.shell("echo ran")
        assert (await world.cancel(order)).standing is AttemptStanding.NEVER
        assert (await world.start(order)).answer is StartAnswer.TOMBSTONED
        asked = world.shell("echo ran")
        assert (await world.query(asked)).standing is AttemptStanding.NEVER
        assert (await world.start(asked)).answer is StartAnswer.TOMBSTONED
        assert world.ends == []


async def test_an_order_that_comes_late_is_buried(world: AgentWorld) -> None:
    async with world.agent_here():
        late = world.shell("echo ran", not_after=datetime.now(UTC) - timedelta(seconds=0.5))
        assert (await world.start(late)).answer is StartAnswer.EXPIRED
        assert (await world.query(late)).standing is AttemptStanding.NEVER


async def test_the_controllers_clock_decides_what_is_late(world: AgentWorld) -> None:
    world.clock_offset = timedelta(hours=-2)
    async with world.agent_here():
        await eventually(lambda: world.beats, 5, "a heartbeat")
        here = datetime.now(UTC)
        assert (await world.start(world.shell("true", not_after=here - timedelta(hours=1)))).answer == "accepted"
        assert (await world.start(world.shell("true", not_after=here - timedelta(hours=3)))).answer == "expired"


async def test_what_cannot_run_is_refused_by_name(world: AgentWorld) -> None:
    async with world.agent_here():
        for order, named in (
            (world.order("nothing", "run_shell", {}), "nothing"),
            (world.order("linux_system", "fly", {}), "linux_system.fly"),
            (world.shell("true", target="mars"), "mars"),
            (world.order("linux_system", "run_shell", {"command": 7}), "command"),
        ):
            reply = await world.start(order)
            assert reply.answer is StartAnswer.REFUSED
            assert named in reply.reason
            assert (await world.query(order)).standing is AttemptStanding.NEVER


async def test_an_order_that_cannot_be_read_is_refused(world: AgentWorld) -> None:
    async with world.agent_here():
        reply = decode(StartReply, await world.ask("start", b'{"run": 7}'))
        assert reply.answer is StartAnswer.REFUSED
        assert "StartOrder" in reply.reason


async def test_slots_and_draining_make_it_busy(world: AgentWorld) -> None:
    async with world.agent_here(slots=2):
        running = [world.shell("sleep 30"), world.shell("sleep 30")]
        for order in running:
            await world.start(order)
        third = world.shell("echo third")
        assert (await world.start(third)).answer is StartAnswer.BUSY
        for order in running:
            await world.cancel(order)
            await world.end_of(order)
        world.draining = True  # first: a heartbeat says it too, and must not take it back
        await world.ask("drain", DrainOrder(draining=True).encode())
        assert (await world.start(third)).answer is StartAnswer.BUSY
        world.draining = False
        await world.ask("drain", DrainOrder(draining=False).encode())
        # Busy was not stored: the same order may come again.
        assert (await world.run_to_end(third)).result is StepResult.PASSED


async def test_the_end_of_one_makes_room_for_the_next(world: AgentWorld) -> None:
    """An order that answers an end at once never finds the slot taken."""
    async with world.agent_here(slots=1):
        orders = [world.shell("true") for _ in range(12)]
        replies = [await world.start(orders[0])]

        async def send_next(end: StepFinished) -> None:
            if len(replies) < len(orders) and end.step == orders[len(replies) - 1].step:
                replies.append(await world.start(orders[len(replies)]))

        world.before_end = send_next
        await world.end_of(orders[-1])
        assert [reply.answer for reply in replies] == [StartAnswer.ACCEPTED] * len(orders)


async def test_cancel_brings_the_whole_tree_down(world: AgentWorld) -> None:
    async with world.agent_here():
        text = 'trap "" TERM; sleep 987 & setsid sleep 986 & echo $$ >"$1"; wait'
        order = world.shell(text, str(world.folder / "pid"))
        await world.start(order)
        pid = int(await eventually(lambda: _text(world, "pid"), 10, "the command"))
        assert (await world.cancel(order, grace_s=0.3)).standing is AttemptStanding.STOPPING
        end = await world.end_of(order)
        assert (end.result, end.tree_gone) == (StepResult.CANCELLED, True)
        assert not is_alive(pid), command_line(pid)
        assert b"stopping" in b"".join(chunk.data for chunk in await world.log_of(order, end))


async def test_a_timeout_belongs_to_the_attempt(world: AgentWorld) -> None:
    async with world.agent_here():
        order = world.shell("echo begun; exec sleep 985", timeout_s=0.5)
        end = await world.run_to_end(order)
        assert (end.result, end.tree_gone, end.reason) == (StepResult.TIMED_OUT, True, "timed out after 0.5 s")
        assert (await world.log_of(order, end))[0].data == b"begun\n"
        assert (end.output["stdout"], end.output["signal"]) == ("begun\n", "SIGTERM")


async def test_a_stale_cancel_stops_nothing(world: AgentWorld) -> None:
    async with world.agent_here():
        order = world.shell("sleep 0.5; echo done")
        await world.start(order)
        stale = order.model_copy(update={"token": "00000000-0000-7000-8000-000000000000"})
        assert (await world.cancel(stale)).standing is AttemptStanding.NEVER
        assert (await world.end_of(order)).result is StepResult.PASSED


async def test_an_unwanted_attempt_is_killed(world: AgentWorld) -> None:
    async with world.agent_here():
        order = world.shell("sleep 984")
        await world.start(order)
        world.unwanted = [AttemptRef(step=order.step, attempt=1, token=order.token)]
        end = await world.end_of(order)
        assert (end.result, end.tree_gone) == (StepResult.CANCELLED, True)


async def test_a_method_that_does_not_let_go_is_left_behind(world: AgentWorld) -> None:
    async with world.agent_here():
        order = world.order("trial", "cling", {})
        await world.start(order)
        await world.cancel(order, grace_s=0.1)
        assert (await world.end_of(order)).result is StepResult.CANCELLED


async def test_what_a_plugin_raises_is_an_error_of_the_step(world: AgentWorld) -> None:
    async with world.agent_here():
        order = world.order("trial", "give_up", {})
        end = await world.run_to_end(order)
        assert end.result is StepResult.ERROR
        assert end.error is not None
        assert "cancelled" in end.error.message
        assert (await world.run_to_end(world.shell("echo alive"))).result is StepResult.PASSED


async def test_secrets_are_masked_everywhere(world: AgentWorld) -> None:
    secret = "s3cr3t-" + "x" * 20
    async with world.agent_here():
        order = world.order("trial", "blab", {"token": secret}, secrets=[secret])
        end = await world.run_to_end(order)
        log = b"".join(chunk.data for chunk in await world.log_of(order, end))
        assert end.result is StepResult.ERROR
        assert end.error is not None
        assert end.error.message == "my token is ***"
        assert b"ValueError: my token is ***" in log
        assert log.count(b"***") >= 4
        assert secret.encode() not in log + end.encode() + world.on_disk()
        pieces = [part.encode().hex() for part in ("out: ", secret[:5], secret[5:9], secret[9:], " end\n", secret[:4])]
        cut = world.order("trial", "write", {"pieces": pieces}, secrets=[secret])
        end = await world.run_to_end(cut)
        assert b"".join(chunk.data for chunk in await world.log_of(cut, end)) == b"out: *** end\ns3cr"


async def test_a_long_output_is_cut_to_fit(world: AgentWorld) -> None:
    async with world.agent_here():
        order = world.shell("""head -c 300000 /dev/zero | tr '\\0' '"'; echo; echo last""")
        end = await world.run_to_end(order)
        assert len(end.encode()) < 70_000
        assert end.output["stdout"].endswith('"\nlast\n')
        assert end.output["exit_code"] == 0


def _text(world: AgentWorld, name: str) -> str:
    path = world.folder / name
    return path.read_text().strip() if path.exists() else ""


async def test_what_a_step_leaves_goes_on_until_its_run_ends(world: AgentWorld) -> None:
    async with world.agent_here():
        end = await world.run_to_end(world.shell("(while :; do echo x; sleep 0.05; done) & echo $!"), timeout=10)
        assert (end.result, end.exit_code) == (StepResult.PASSED, 0)
        server = int(end.output["stdout"].split()[0])
        await eventually(lambda: world.beats[-1].holding == [world.run_id], 5, "the agent to say what it holds")
        following = await world.run_to_end(world.shell('kill -0 "$1"', str(server)))
        assert following.result is StepResult.PASSED
        world.over = [world.run_id]
        await eventually(lambda: not is_alive(server), 10, "the server to end with its run")
        await eventually(lambda: world.beats[-1].holding == [], 5, "nothing to be held")


async def test_a_cancelled_step_takes_what_its_shell_left_with_it(world: AgentWorld) -> None:
    async with world.agent_here():
        order = world.shell("sh -c 'sleep 120 & echo $!'; sleep 60")
        await world.start(order)
        printed = await eventually(lambda: world.stored(order), 10, "the child to be named")
        await world.cancel(order)
        end = await world.end_of(order)
        assert (end.result, end.tree_gone) == (StepResult.CANCELLED, True)
        assert not is_alive(int(printed[0].data.split()[0]))


async def test_a_hidden_value_under_a_name_that_no_shell_sets_is_refused(world: AgentWorld) -> None:
    async with world.agent_here():
        seen = {"IFS": ",", "UID": "1000", "OPTIND": "x", "_prn": "mine"}
        order = world.order("linux_system", "run_shell", {"command": "env", "env": seen})
        end = await world.run_to_end(order)
        assert end.result is StepResult.PASSED, end.reason
        assert {f"{name}={value}" for name, value in seen.items()} <= set(end.output["stdout"].splitlines())
        hidden: dict[str, Any] = {"env": {"_prn": "s3cret-1"}, "secrets": ["s3cret-1"]}
        order = world.order("linux_system", "run_shell", {"command": "env"}, **hidden)
        end = await world.run_to_end(order)
        assert (end.result, end.error and end.error.kind) == (StepResult.ERROR, "bad_command")
        assert "_prn: the target's /bin/sh cannot set it, and its value is hidden" in end.reason
        order = world.order("linux_system", "run_shell", {"command": "env"}, env={"PROCTOR_ATTEMPT": "x"})
        end = await world.run_to_end(order)
        assert "PROCTOR_ATTEMPT: the agent itself sets it" in end.reason


async def test_the_end_of_a_step_whose_shell_hangs_is_bounded(
    world: AgentWorld, openssh_server: OpenSshServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proctor_agent.ssh.tree.EXTRA_S", 1.0)
    allowed = openssh_server.folder / "authorized_keys"
    allowed.write_text(f'command="sleep 300" {allowed.read_text()}')
    world.ssh = openssh_server.target
    async with world.agent_here():
        order = world.shell("true")
        await world.start(order)
        began = asyncio.get_running_loop().time()
        await world.cancel(order)
        end = await world.end_of(order, 15)
        assert asyncio.get_running_loop().time() - began < order.grace_s + 1 + 2 + 3 + 2
        assert end.result is StepResult.CANCELLED
