"""What an agent does when it is killed, stopped, cut off or refused: no second execution, no end or host lost."""

import asyncio
import signal
import time

from proctor_common.messages.orders import AttemptStanding, StartAnswer, StartOrder
from proctor_common.states import GapReason, StepResult
from support.agent import AgentWorld
from support.nats import NatsServer
from support.processes import Processes, is_alive
from support.wait import eventually

COUNTED = 'echo x >>"$1"; echo begun; trap "" TERM HUP; setsid sleep 977 & echo $! $$ >"$2"; wait; sleep 976'


def counted(world: AgentWorld) -> StartOrder:
    return world.shell(COUNTED, str(world.folder / "ran"), str(world.folder / "pids"))


async def pids_of(world: AgentWorld) -> list[int]:
    def read() -> list[int]:
        path = world.folder / "pids"
        return [int(word) for word in path.read_text().split()] if path.exists() else []

    return await eventually(read, 15, "the command to run")


async def until_confirmed(world: AgentWorld, order: StartOrder) -> None:
    async def confirmed() -> bool:
        return (await world.query(order)).standing is AttemptStanding.CONFIRMED

    await eventually(confirmed, 10, "the confirmation to be in the journal")


async def test_killed_in_the_middle_of_a_step(world: AgentWorld, processes: Processes) -> None:
    agent = await world.agent_process(processes)
    order = counted(world)
    await world.start(order)
    pids = await pids_of(world)
    await eventually(lambda: world.stored(order), 10, "the first chunk")
    agent.kill()
    assert all(is_alive(pid) for pid in pids)

    async with world.agent_here():
        end = await world.end_of(order)
        assert (end.result, end.reason, end.tree_gone) == (StepResult.LOST, "agent_restarted", True)
        assert not any(is_alive(pid) for pid in pids)
        log = await world.log_of(order, end)
        assert log[0].data == b"begun\n"
        assert log[-1].gap is GapReason.LOST
        # It says at first that something is left, then that it is gone; work is taken then, and this one never again.
        first, *_, last = [brought.leftovers for brought in world.registrations[1:]]
        assert [(ref.step, ref.attempt, ref.token) for ref in first] == [(order.step, 1, order.token)]
        assert last == []
        assert (await world.start(order)).answer is StartAnswer.ACCEPTED
        assert (await world.run_to_end(world.shell("true"))).result is StepResult.PASSED
        await until_confirmed(world, order)
    assert (world.folder / "ran").read_text() == "x\n"


async def test_an_end_that_nobody_confirmed_outlives_the_agent(world: AgentWorld, processes: Processes) -> None:
    world.confirming = False
    agent = await world.agent_process(processes)
    order = world.shell("echo kept; exit 5")
    end = await world.run_to_end(order)
    # It is published again and again until then.
    await eventually(lambda: len(world.ends) >= 3, 10, "copies of the end")
    standing = await world.query(order)
    assert (standing.standing, standing.end) == (AttemptStanding.FINISHED, end)
    agent.kill()
    world.ends.clear()

    async with world.agent_here():
        assert await world.end_of(order) == end
        assert (await world.start(order)).answer is StartAnswer.ACCEPTED
        assert await eventually(lambda: world.beats[-1].ended, 5, "the heartbeat to name it")
        world.confirming = True
        await eventually(lambda: not world.beats[-1].ended, 5, "the confirmation")
        await eventually(lambda: not world.spooled(), 5, "the spool to be empty")
        await until_confirmed(world, order)


async def test_a_loop_that_is_blocked_keeps_its_host(world: AgentWorld, processes: Processes) -> None:
    await world.agent_process(processes)
    order = world.order("trial", "block", {"seconds": 2.5})
    await world.start(order)
    end = await world.end_of(order)
    assert end.result is StepResult.PASSED
    assert end.started_at is not None
    pauses = [after - before for before, after in zip(world.beaten_at, world.beaten_at[1:], strict=False)]
    assert max(pauses) < 1.5, pauses


async def test_a_step_goes_on_while_the_bus_is_away(fragile: AgentWorld, nats_server: NatsServer) -> None:
    world = fragile
    async with world.agent_here():
        text = 'echo one; until [ -e "$1" ]; do sleep 0.05; done; echo two; touch "$2"; exit 4'
        order = world.shell(text, str(world.folder / "go"), str(world.folder / "gone"))
        await world.start(order)
        await eventually(lambda: world.stored(order), 10, "the first chunk")
        nats_server.kill()
        (world.folder / "go").touch()
        await eventually((world.folder / "gone").exists, 10, "the step's end while the bus is away")
        nats_server.start()
        end = await world.end_of(order, 30)
        assert (end.result, end.exit_code) == (StepResult.FAILED, 4)
        assert b"".join(chunk.data for chunk in await world.log_of(order, end)) == b"one\ntwo\n"
        beats = len(world.beats)
        await eventually(lambda: len(world.beats) > beats, 10, "heartbeats again")
        assert (await world.run_to_end(world.shell("true"))).result is StepResult.PASSED


async def test_asked_to_end_it_brings_its_attempts_down(world: AgentWorld, processes: Processes) -> None:
    agent = await world.agent_process(processes)
    order = world.shell('echo $$ >"$1"; exec sleep 975', str(world.folder / "pids"))
    await world.start(order)
    (pid,) = await pids_of(world)
    begun = time.monotonic()
    agent.signal(signal.SIGTERM)
    code = await asyncio.to_thread(agent.wait, 10)
    assert code == 0, agent.output
    assert time.monotonic() - begun < 5
    end = await world.end_of(order)
    assert (end.result, end.reason, end.tree_gone) == (StepResult.LOST, "agent_stopped", True)
    assert not is_alive(pid)


async def test_an_instance_that_is_refused_does_not_answer(world: AgentWorld) -> None:
    """Two processes with one key: the one that the controllers do not know neither runs nor buries anything."""
    world.refusing = "another instance speaks as this agent"
    async with world.agent_here():
        order = world.shell("echo ran")
        asked = asyncio.create_task(world.query(order))
        await eventually(lambda: len(world.registrations) >= 3, 10, "registrations again")
        assert not asked.done()
        world.refusing = ""
        # What was asked meanwhile is answered by the registered agent.
        assert (await asked).standing is AttemptStanding.NEVER
        assert (await world.run_to_end(world.shell("echo ran"))).result is StepResult.PASSED
        world.refusing = "another instance speaks as this agent"
        beats = len(world.beats)
        await eventually(lambda: len(world.beats) > beats + 2, 5, "refused heartbeats")
        started = asyncio.create_task(world.start(world.shell("echo ran")))
        done, _ = await asyncio.wait({started}, timeout=0.5)
        assert not done
        world.refusing = ""
        assert (await started).answer is StartAnswer.ACCEPTED


async def test_it_registers_again_when_asked(world: AgentWorld) -> None:
    async with world.agent_here():
        world.register_again = True
        before = len(world.registrations)
        await eventually(lambda: len(world.registrations) > before, 5, "another registration")
        brought = world.registrations[-1]
        assert brought.slots == 4
        assert {"linux_system", "trial"} <= set(brought.plugins)
        assert brought.default_target == "lab"
        assert brought.targets["lab"].port == world.ssh.port


async def test_one_data_directory_belongs_to_one_agent(world: AgentWorld, processes: Processes) -> None:
    async with world.agent_here():
        env = {f"PROCTOR_AGENT_{name.upper()}": str(value) for name, value in (("data_dir", world.data),)}
        second = processes.start([*world.command, "run"], name="second", env=env)
        assert await asyncio.to_thread(second.wait, 20) == 1
        assert second.stderr.strip() == f"proctor agent: data_dir: another agent uses {world.data}"
