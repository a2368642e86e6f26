"""The streams and durables (docs/architecture.md). No I/O."""

from proctor_common import subjects
from proctor_common.bus.shapes import ConsumerSpec, RePublish, StreamSpec

GIB = 1024**3
DAY = 86_400.0
DEDUPE_WINDOW = 600.0


def log_stream(*, max_bytes: int = 20 * GIB, max_age: float = 30 * DAY, replicas: int = 1) -> StreamSpec:
    """Log chunks; the oldest are deleted first. Each stored chunk is announced without its payload, to wake tails."""
    source, destination = subjects.LOG_REPUBLISH
    return StreamSpec(
        name=subjects.LOG_STREAM,
        subjects=(subjects.LOG_SUBJECTS,),
        max_bytes=max_bytes,
        max_age=max_age,
        duplicate_window=DEDUPE_WINDOW,
        allow_direct=True,
        compression="s2",
        replicas=replicas,
        republish=RePublish(source, destination, headers_only=True),
        description="log chunks, read by batched direct get",
    )


def event_stream(*, max_bytes: int = GIB, replicas: int = 1) -> StreamSpec:
    """Agents' reports on attempts. A full stream refuses them, so that the agent keeps and repeats them."""
    return StreamSpec(
        name=subjects.EVENT_STREAM,
        subjects=(subjects.EVENT_SUBJECTS,),
        max_bytes=max_bytes,
        duplicate_window=DEDUPE_WINDOW,
        discard="new",
        retention="workqueue",
        replicas=replicas,
        description="agent events, gone when a controller has committed them",
    )


def event_consumer() -> ConsumerSpec:
    """The durable of all controllers; a message that is not acknowledged in 10 s goes to another one."""
    return ConsumerSpec(
        stream=subjects.EVENT_STREAM,
        durable=subjects.EVENT_DURABLE,
        ack_wait=10.0,
        max_ack_pending=1000,
        description="agent events for the controllers",
    )
