"""Requests of the api: decode, find the handler, answer with a view or a refusal. No SQL, no rules."""

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from pydantic import ValidationError
from pydantic_core import to_json

from proctor_common import subjects
from proctor_common.bus import BusError, Message
from proctor_common.errors import Code, ProctorError, fault, faults, invalid
from proctor_common.limits import MAX_FAULTS
from proctor_common.messages.base import BadMessage, Encoded, WireMessage, decode
from proctor_common.messages.calls.operation import (
    A,
    Actor,
    AnyOperation,
    CallEnvelope,
    Operation,
    Q,
    accept,
    refuse,
)
from proctor_common.messages.views import View
from proctor_common.pg import database_unavailable, is_database_down
from proctor_controller.context import ProcessContext

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Handler:
    """An operation and its handler, which returns the answer or raises ProctorError."""

    operation: AnyOperation
    perform: Callable[[ProcessContext, Actor, Any], Awaitable[Any]]


def on(operation: Operation[Q, A], perform: Callable[[ProcessContext, Actor, Q], Awaitable[A | Encoded[A]]]) -> Handler:
    """The only maker of handlers; mypy holds the function to the operation's request and answer."""
    return Handler(operation, perform)


class Calls:
    """Answers all calls by a table of handlers."""

    def __init__(self, context: ProcessContext, table: Mapping[str, Handler]) -> None:
        self._context = context
        self._table = table

    async def answer(self, message: Message) -> bytes:
        """The reply to one call. Never raises: unexpected exceptions are logged and answered as ``internal``."""
        op = subjects.op_of(message.subject)
        try:
            return accept(await self._perform(op, message.data))
        except ProctorError as error:
            return refuse(error)
        except BusError as fault:
            log.warning("call_failed", op=op, error=str(fault))
            return refuse(ProctorError(Code.BUS_UNAVAILABLE, "the bus is unavailable; try again in a moment"))
        except Exception as fault:
            if is_database_down(fault):
                return refuse(database_unavailable())
            log.exception("call_failed", op=op)
            return refuse(ProctorError(Code.INTERNAL, "something went wrong in the controller; its log says what"))

    async def _perform(self, op: str, payload: bytes) -> bytes:
        handler = self._table.get(op)
        if handler is None:
            raise ProctorError(Code.NOT_FOUND, f"no such operation: {op}", what="operation", name=op)
        try:
            call = decode(CallEnvelope, payload)
        except BadMessage as fault:
            raise ProctorError(Code.BAD_REQUEST, str(fault)) from fault
        body = read_body(handler.operation.request, call)
        return bytes_of(await handler.perform(self._context, call.actor, body))


def bytes_of(answer: Any) -> bytes:
    """A handler's answer as JSON."""
    if isinstance(answer, Encoded):
        return answer.data
    return answer.encode() if isinstance(answer, View) else to_json(answer)


def is_finite(value: Any) -> bool:
    """Whether all numbers in parsed JSON are finite: ``1e400`` and ``NaN`` can be parsed, but not stored as JSON."""
    stack = [value]
    while stack:
        part = stack.pop()
        if isinstance(part, float):
            if not math.isfinite(part):
                return False
        elif isinstance(part, dict):
            stack.extend(part.values())
        elif isinstance(part, list):
            stack.extend(part)
    return True


def read_body(model: type[WireMessage], call: CallEnvelope) -> WireMessage:
    """The operation's body. Raises ProctorError ``invalid`` with all faults; none of them quotes the input."""
    if not is_finite(call.body):
        raise invalid("a number in it is infinite or none at all")
    try:
        return model.model_validate(call.body)
    except ValidationError as refused:
        found = refused.errors(include_input=False, include_url=False)[:MAX_FAULTS]
        paths = [".".join(map(str, error["loc"])) for error in found]
        raise faults(
            [fault(error["type"], f"{path}: {error['msg']}", path) for path, error in zip(paths, found, strict=True)]
        ) from None
