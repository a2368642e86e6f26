"""JetStream by its own wire protocol: appends, batched direct get, streams and consumers, over one connection.

Plain requests with JSON. nats-py's own JetStream layer is not used: its ordered consumer loses messages silently, and
its asynchronous publish does not report errors of the server.
"""

import asyncio
import json
from datetime import datetime
from itertools import pairwise
from typing import Any

from proctor_common.bus.connection import NO_RESPONDERS, STATUS, Connection
from proctor_common.bus.errors import BusTimeout, NoResponders, StreamRefused
from proctor_common.bus.shapes import Appended, ConsumerSpec, Message, Stored, StreamSpec, StreamState

API = "$JS.API"
NO_MESSAGE = "404"
END_OF_BATCH = "204"
NANO = 1_000_000_000
STREAM_NOT_FOUND = 10059
NO_STORAGE = 10047
CREATE_PAUSES = (0.05, 0.2, 0.5, 1.0)


async def append(connection: Connection, subject: str, payload: bytes, msg_id: str | None, timeout: float) -> Appended:
    """Publish and wait for the stream's acknowledgement."""
    headers = {"Nats-Msg-Id": msg_id} if msg_id else None
    message = await connection.ask(subject, payload, timeout, headers)
    answer = _checked(message.data)
    return Appended(answer["stream"], answer["seq"], bool(answer.get("duplicate")))


def _checked(data: bytes) -> dict[str, Any]:
    """The answer's JSON, or StreamRefused with its error."""
    answer: dict[str, Any] = json.loads(data)
    error = answer.get("error")
    if error:
        raise StreamRefused(error.get("err_code", 0), error.get("description", "refused"), status=error.get("code", 0))
    return answer


async def call(connection: Connection, operation: str, body: dict[str, Any] | None, timeout: float) -> dict[str, Any]:
    """One request of the JetStream API. Raises StreamRefused with the server's error."""
    message = await connection.ask(f"{API}.{operation}", json.dumps(body).encode() if body else b"", timeout)
    return _checked(message.data)


def _stored(message: Message) -> Stored:
    headers = message.headers
    return Stored(
        seq=int(headers["Nats-Sequence"]),
        subject=headers["Nats-Subject"],
        data=message.data,
        time=datetime.fromisoformat(headers["Nats-Time-Stamp"]),
        num_pending=int(headers.get("Nats-Num-Pending", 0)),
        headers=headers,
    )


async def direct_get(
    connection: Connection,
    stream: str,
    start_seq: int,
    *,
    subject_filter: str,
    batch: int,
    max_bytes: int,
    timeout: float,
) -> list[Stored]:
    """Batched direct get; checks that the answers have no gap."""
    body = {"seq": max(1, start_seq), "next_by_subj": subject_filter, "batch": batch, "max_bytes": max_bytes}
    messages = await connection.collect(
        f"{API}.DIRECT.GET.{stream}", json.dumps(body).encode(), timeout, lambda message: STATUS in message.headers
    )
    _check_end(stream, messages.pop())
    found = [_stored(message) for message in messages]
    for before, after in pairwise(found):
        if int(after.headers.get("Nats-Last-Sequence", before.seq)) != before.seq:
            raise BusTimeout(f"answers of {stream} were lost after sequence {before.seq}")
    return found


def _check_end(stream: str, end: Message) -> None:
    status = end.headers[STATUS]
    if status == NO_RESPONDERS:
        raise NoResponders(f"no stream {stream} answers direct gets")
    if status not in {END_OF_BATCH, NO_MESSAGE}:
        raise StreamRefused(int(status), end.headers.get("Description", "refused"), status=int(status))


async def last_stored(connection: Connection, stream: str, subject_filter: str, timeout: float) -> Stored | None:
    """The newest message of the subjects that match."""
    body = json.dumps({"last_by_subj": subject_filter}).encode()
    message = await connection.ask(f"{API}.DIRECT.GET.{stream}", body, timeout)
    if STATUS in message.headers:
        _check_end(stream, message)
        return None
    return _stored(message)


def _stream_config(spec: StreamSpec) -> dict[str, Any]:
    config: dict[str, Any] = {
        "name": spec.name,
        "subjects": list(spec.subjects),
        "max_bytes": spec.max_bytes,
        "max_age": round(spec.max_age * NANO),
        "max_msg_size": spec.max_msg_size,
        "duplicate_window": round(spec.duplicate_window * NANO),
        "discard": spec.discard,
        "retention": spec.retention,
        "storage": "file",
        "allow_direct": spec.allow_direct,
        "compression": spec.compression,
        "num_replicas": spec.replicas,
        "description": spec.description,
    }
    if spec.republish is not None:
        config["republish"] = {
            "src": spec.republish.source,
            "dest": spec.republish.destination,
            "headers_only": spec.republish.headers_only,
        }
    return config


async def ensure_stream(connection: Connection, spec: StreamSpec, timeout: float) -> None:
    """Create or update; several services may do it at once."""
    config = _stream_config(spec)
    for pause in (*CREATE_PAUSES, None):
        try:
            await call(connection, f"STREAM.UPDATE.{spec.name}", config, timeout)
            return
        except StreamRefused as fault:
            if fault.code != STREAM_NOT_FOUND:
                raise
        try:
            await call(connection, f"STREAM.CREATE.{spec.name}", config, timeout)
            return
        except StreamRefused as fault:
            # While another service creates the same stream, the server counts its reservation twice.
            if fault.code != NO_STORAGE or pause is None:
                raise
        await asyncio.sleep(pause)


async def ensure_consumer(connection: Connection, spec: ConsumerSpec, timeout: float) -> None:
    """Create or update a durable pull consumer."""
    config: dict[str, Any] = {
        "durable_name": spec.durable,
        "name": spec.durable,
        "ack_policy": "explicit",
        "deliver_policy": "all",
        "replay_policy": "instant",
        "ack_wait": round(spec.ack_wait * NANO),
        "max_ack_pending": spec.max_ack_pending,
        "max_deliver": spec.max_deliver,
        "description": spec.description,
    }
    if spec.filter_subject:
        config["filter_subject"] = spec.filter_subject
    body = {"stream_name": spec.stream, "config": config, "action": ""}
    await call(connection, f"CONSUMER.CREATE.{spec.stream}.{spec.durable}", body, timeout)


async def purge_subject(connection: Connection, stream: str, subject_filter: str, timeout: float) -> int:
    """Delete the messages that match the filter."""
    answer = await call(connection, f"STREAM.PURGE.{stream}", {"filter": subject_filter}, timeout)
    return int(answer.get("purged", 0))


async def stream_subjects(connection: Connection, stream: str, subject_filter: str, timeout: float) -> dict[str, int]:
    """Subjects and their counts; the server returns 100,000 at a time."""
    subjects: dict[str, int] = {}
    while True:
        body = {"subjects_filter": subject_filter, "offset": len(subjects)}
        answer = await call(connection, f"STREAM.INFO.{stream}", body, timeout)
        page = answer["state"].get("subjects") or {}
        subjects.update(page)
        if not page or len(subjects) >= answer.get("total", 0):
            return subjects


async def stream_state(connection: Connection, stream: str, timeout: float) -> StreamState:
    """Counts of one stream."""
    state = (await call(connection, f"STREAM.INFO.{stream}", None, timeout))["state"]
    return StreamState(
        messages=state["messages"],
        bytes=state["bytes"],
        first_seq=state["first_seq"],
        last_seq=state["last_seq"],
        consumers=state["consumer_count"],
    )
