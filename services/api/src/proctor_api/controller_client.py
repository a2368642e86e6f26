"""Operations that a controller carries out: one NATS request, one reply each."""

from typing import TypeVar

import structlog
from pydantic import BaseModel

from proctor_common import subjects
from proctor_common.bus import Bus, BusError, BusTimeout, NoResponders
from proctor_common.errors import Code, ProctorError
from proctor_common.messages.base import BadMessage, Encoded, decode
from proctor_common.messages.calls.audit import ADD_AUDIT, AuditAdd
from proctor_common.messages.calls.operation import A, Actor, AnyOperation, Operation, Q, answer_of
from proctor_common.states import Role

log = structlog.get_logger(__name__)

V = TypeVar("V", bound=BaseModel)
RETRY_AFTER = 2
"""Seconds that a 503 tells the client to wait."""

TRIES = 4
"""Each try goes to some controller, so one that hangs among several costs one try, not the request."""

LARGE = 64 * 1024
"""Bytes. A larger request gets fewer, longer tries: a controller on a busy machine takes seconds for a plan of a
thousand steps, and goes on with it after the api has given up a try.
"""
LARGE_TRIES = 2

SELF = Actor(name="api", role=Role.ADMIN)
"""The actor of requests that the api makes on its own behalf."""


class ControllerClient:
    """Sends operations. Every method but ``audit`` raises ProctorError: the controller's refusal, or
    ``bus_unavailable``.
    """

    def __init__(self, bus: Bus, timeout: float) -> None:
        self._bus = bus
        self._timeout = timeout

    async def ask(self, operation: Operation[Q, V], actor: Actor, body: Q) -> V:
        """The answer, decoded."""
        answer = await self.ask_encoded(operation, actor, body)
        try:
            return decode(operation.answer, answer.data)
        except BadMessage as fault:
            raise _unreadable(operation, fault) from fault

    async def ask_encoded(self, operation: Operation[Q, A], actor: Actor, body: Q) -> Encoded[A]:
        """The answer's JSON, undecoded."""
        payload = b'{"v":1,"actor":%s,"body":%s}' % (actor.encode(), body.encode())
        reply = await self._send(operation, payload)
        try:
            return Encoded(answer_of(reply))
        except BadMessage as fault:
            raise _unreadable(operation, fault) from fault

    async def _send(self, operation: AnyOperation, payload: bytes) -> bytes:
        op = operation.name
        subject = subjects.call(op)
        tries = 1 if operation.once else TRIES
        timeout = self._timeout / tries
        if not operation.once and len(payload) > LARGE:
            tries, timeout = LARGE_TRIES, self._timeout
        while True:
            tries -= 1
            try:
                return await self._bus.request(subject, payload, timeout=timeout)
            except BusTimeout as fault:
                if tries <= 0:
                    raise bus_unavailable(op, fault) from fault
            except BusError as fault:
                raise bus_unavailable(op, fault) from fault

    async def audit(self, actor: Actor, action: str, subject: str, **detail: object) -> None:
        """Add an action of the api itself to the audit log. A failure is logged only: the action is done."""
        try:
            body = AuditAdd(action=action, object=subject, detail=dict(detail))
            await self.ask_encoded(ADD_AUDIT, actor, body)
        except ProctorError as fault:
            log.error("audit_not_written", action=action, object=subject, actor=actor.name, error=fault.message)


def _unreadable(operation: AnyOperation, fault: BadMessage) -> ProctorError:
    log.error("bad_answer", op=operation.name, error=str(fault))
    return ProctorError(Code.INTERNAL, "a controller sent an answer that cannot be read")


def bus_unavailable(op: str, fault: BusError) -> ProctorError:
    """503 for an operation that got no answer."""
    log.warning("call_failed", op=op, error=str(fault))
    if isinstance(fault, NoResponders):
        text = "no controller is running; try again in a moment"
    elif isinstance(fault, BusTimeout):
        text = "the controllers did not answer in time; the request may have been carried out"
    else:
        text = "the bus is unavailable; try again in a moment"
    return ProctorError(Code.BUS_UNAVAILABLE, text, retry_after=RETRY_AFTER)
