"""An attempt's log from the target to the stream: every byte once and in order, whatever happens on the way."""

import asyncio
from dataclasses import replace
from pathlib import Path

from proctor_agent.log.redact import Redactor
from proctor_agent.log.shipping import LogOf, LogShip
from proctor_agent.log.spool import Spool
from proctor_common.bus import Bus, BusOptions
from proctor_common.bus.streams import log_stream
from proctor_common.messages.log import MAX_DATA, Chunk, decode_chunk
from proctor_common.states import GapReason, Source, StepResult
from support.agent import AgentWorld
from support.nats import NatsServer
from support.wait import eventually

MIB = 1024 * 1024
COUNTED = "for k in $(seq 10 $1); do seq ${k}00001 ${k}10000; sleep 0.03; done; echo over >$2"


def counted(last: int) -> bytes:
    """What COUNTED prints."""
    return b"".join(b"%d%05d\n" % (k, n) for k in range(10, last + 1) for n in range(1, 10001))


def joined(chunks: list[Chunk]) -> bytes:
    return b"".join(chunk.data for chunk in chunks if chunk.source is Source.STDOUT)


def gaps(chunks: list[Chunk]) -> list[tuple[GapReason, int]]:
    return [(chunk.gap, chunk.dropped) for chunk in chunks if chunk.gap is not None]


async def some_stored(world: AgentWorld) -> None:
    async def look() -> bool:
        return (await world.bus.stream_state("LOG")).messages > 3

    await eventually(look, 20, "some chunks in the stream")


# -- the stream comes and goes -----------------------------------------------------------------------------------------


async def test_the_stream_is_away_for_a_while_in_a_flood(
    fragile: AgentWorld, nats_server: NatsServer, tmp_path: Path
) -> None:
    async with fragile.agent_here():
        order = fragile.shell(COUNTED, "60", str(tmp_path / "over"))
        assert (await fragile.start(order)).answer == "accepted"
        await some_stored(fragile)
        nats_server.kill()
        spool = fragile.data / "spool"
        before = _size(spool)
        await eventually(lambda: _size(spool) > before + 500_000, 20, "the spool to take what the stream cannot")
        nats_server.start()
        end = await fragile.end_of(order, 40)
        assert end.result is StepResult.PASSED
        assert joined(await fragile.log_of(order, end)) == counted(60)


async def test_a_stream_that_takes_no_more_is_waited_for(fragile: AgentWorld, tmp_path: Path) -> None:
    await fragile.bus.ensure_stream(replace(log_stream(max_bytes=200_000), discard="new"))
    async with fragile.agent_here():
        order = fragile.shell(COUNTED, "30", str(tmp_path / "over"))
        assert (await fragile.start(order)).answer == "accepted"
        await eventually((tmp_path / "over").exists, 20, "the step to go on beside a full stream")
        assert not fragile.ends
        await fragile.bus.ensure_stream(log_stream(max_bytes=2 * 1024**3))
        end = await fragile.end_of(order, 30)
        assert joined(await fragile.log_of(order, end)) == counted(30)


async def test_a_full_spool_is_a_gap_and_the_step_goes_on(
    fragile: AgentWorld, nats_server: NatsServer, tmp_path: Path
) -> None:
    async with fragile.agent_here(attempt_spool_limit=MIB):
        order = fragile.shell(COUNTED, "80", str(tmp_path / "over"))
        assert (await fragile.start(order)).answer == "accepted"
        await some_stored(fragile)
        nats_server.kill()
        await eventually((tmp_path / "over").exists, 30, "the step to end without the stream")
        nats_server.start()
        end = await fragile.end_of(order, 30)
        assert end.result is StepResult.PASSED
        chunks = await fragile.log_of(order, end)
        found = gaps(chunks)
        assert {reason for reason, _ in found} == {GapReason.SPOOL_FULL}
        whole = counted(80)
        assert sum(dropped for _, dropped in found) + end.bytes == len(whole)
        _check_places(chunks, whole)


def _check_places(chunks: list[Chunk], whole: bytes) -> None:
    """Each chunk stands in the line it says, and what is missing is exactly what the gaps count."""
    starts = [0]
    for line in whole.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    at = 0
    for chunk in chunks:
        if chunk.gap is not None:
            at += chunk.dropped
            continue
        assert whole[at : at + len(chunk.data)] == chunk.data
        assert starts[chunk.first_line - 1] <= at < starts[chunk.first_line]
        at += len(chunk.data)
    assert at == len(whole)


# -- what commands print -----------------------------------------------------------------------------------------------


async def test_a_million_empty_lines(world: AgentWorld) -> None:
    async with world.agent_here():
        order = world.shell("yes '' | head -n 1000000")
        end = await world.run_to_end(order, 30)
        chunks = await world.log_of(order, end)
        assert joined(chunks) == b"\n" * 1_000_000
        assert (end.lines, end.bytes) == (1_000_000, 1_000_000)
        assert end.chunks < 1000


async def test_a_line_of_20_mb(world: AgentWorld) -> None:
    async with world.agent_here():
        order = world.shell("head -c 20000000 /dev/zero | tr '\\0' x")
        end = await world.run_to_end(order, 40)
        chunks = await world.log_of(order, end)
        assert joined(chunks) == b"x" * 20_000_000
        assert end.lines == 1
        assert all(chunk.first_line == 1 for chunk in chunks)
        assert max(len(chunk.data) for chunk in chunks) <= MAX_DATA


async def test_bytes_stay_bytes_and_characters_whole(world: AgentWorld) -> None:
    pieces = [
        b"caf\xc3",
        b"\xa9 \xe2\x82",
        b"\xac\n",
        b"\xff\xfe\x00 bad \xc3(\n",
        b"\xf0\x9f",
        b"\x98\x80 end \xe2\x82",
    ]
    async with world.agent_here():
        order = world.order("trial", "write", {"pieces": [piece.hex() for piece in pieces]})
        end = await world.run_to_end(order)
        chunks = await world.log_of(order, end)
        assert joined(chunks) == b"".join(pieces)
        text = "".join(chunk.data.decode(errors="replace") for chunk in chunks)
        assert text == b"".join(pieces).decode(errors="replace")


async def test_the_limit_of_a_log_is_announced_and_the_step_goes_on(world: AgentWorld, tmp_path: Path) -> None:
    async with world.agent_here():
        order = world.shell(COUNTED, "20", str(tmp_path / "over"), log_limit=200_000)
        end = await world.run_to_end(order)
        assert end.result is StepResult.PASSED
        assert (tmp_path / "over").exists()
        chunks = await world.log_of(order, end)
        ((reason, dropped),) = gaps(chunks)
        assert reason is GapReason.LIMIT
        assert end.bytes <= 200_000
        assert end.bytes + dropped == len(counted(20))
        assert counted(20).startswith(joined(chunks))


async def test_a_secret_cut_anywhere_is_seen_nowhere(world: AgentWorld) -> None:
    secret = "s3cr3t-Tr0ub4dor&3"
    text = f"before {secret} between {secret}{secret} after\n".encode()
    pieces = [text[at : at + size] for size in (1, 3, 7) for at in range(0, len(text), size)]
    world.confirming = False
    async with world.agent_here():
        order = world.order("trial", "write", {"pieces": [piece.hex() for piece in pieces]}, secrets=[secret])
        end = await world.run_to_end(order)
        chunks = await world.log_of(order, end)
        assert joined(chunks) == b"before *** between ****** after\n" * 3
        kept = world.on_disk()
        assert b"***" in kept  # what stands around it may have been cut into another chunk
        assert secret.encode() not in kept


# -- what is kept ------------------------------------------------------------------------------------------------------


async def test_a_log_is_kept_until_its_end_is_confirmed(world: AgentWorld) -> None:
    world.confirming = False
    async with world.agent_here():
        order = world.shell("echo kept")
        await world.run_to_end(order)
        await eventually(lambda: len(world.ends) >= 3, 10, "the end to be published again and again")
        assert world.spooled() == [f"{order.step}.1.1.spool"]
        assert [(ref.step, ref.token) for ref in world.beats[-1].ended] == [(order.step, order.token)]
        world.confirming = True
        await eventually(lambda: not world.spooled(), 10, "the spool to be forgotten")
        copies = len(world.ends)
        await eventually(lambda: not world.beats[-1].ended, 10, "a heartbeat without it")
        beats = len(world.beats)
        await eventually(lambda: len(world.beats) > beats + 5, 10, "more heartbeats")
        assert len(world.ends) <= copies + 1
        assert (await world.query(order)).standing == "confirmed"
        assert (await world.start(order)).answer == "accepted"
        assert not world.beats[-1].attempts


async def test_what_an_agent_left_is_sent_by_the_next(nats_server: NatsServer, tmp_path: Path) -> None:
    """The next life goes on behind the last whole chunk; where chunks are missing on disk, a gap takes their number."""
    of = LogOf("agent", "run", "step", 1)
    first = Spool(tmp_path, limit=MIB, attempt_limit=MIB)
    async with Bus(BusOptions((nats_server.url,), name="test", reconnect_wait=(0.05, 0.1))) as bus:
        await bus.ensure_stream(log_stream(max_bytes=MIB))
        nats_server.kill()
        await eventually(lambda: not bus.connected, 5, "the connection to be gone")
        async with LogShip(bus, of, first.begin("step", 1), Redactor(()), limit=MIB) as ship:
            for number in range(1, 6):
                await ship.write(Source.STDOUT, b"line %d\n" % number)
                await asyncio.sleep(0.025)
        first.close()
        (path,) = tmp_path.iterdir()
        _cut_out_third_frame(path)
        second = Spool(tmp_path, limit=MIB, attempt_limit=MIB)
        spool = second.attempt("step", 1)
        found = spool.recover()
        assert found is not None
        assert (found.last_seq, found.line) == (5, 6)
        nats_server.start()
        async with LogShip(bus, of, spool, Redactor(()), limit=MIB, found=found) as ship:
            await ship.write(Source.STDOUT, b"line 6\n")
            totals = await ship.finish()
            await ship.stored()
        assert totals.lines == 6
        stored = await bus.direct_get("LOG", subject_filter="proctor.v1.log.>")
        chunks = [decode_chunk(one.data) for one in stored]
        assert [chunk.seq for chunk in chunks] == [1, 2, 3, 4, 5, 6]
        assert [chunk.gap for chunk in chunks] == [None, None, GapReason.LOST, None, None, None]
        assert [chunk.first_line for chunk in chunks if chunk.gap is None] == [1, 2, 4, 5, 6]
        second.forget("step", 1)
        assert second.used == 0
        assert list(tmp_path.iterdir()) == []


def _cut_out_third_frame(path: Path) -> None:
    data = path.read_bytes()
    at, frames = 24, []
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        frames.append(data[at:end])
        at = end
    path.write_bytes(data[:24] + b"".join(frames[:2] + frames[3:]))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
