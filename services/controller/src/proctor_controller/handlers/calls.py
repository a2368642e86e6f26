"""Requests of the api: decode, find the handler, answer with a view or with why not. No SQL, no rules."""

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog
from pydantic import ValidationError

from proctor_common import subjects
from proctor_common.bus import BusError, Message
from proctor_common.errors import Code, ProctorError, fault, faults, invalid
from proctor_common.limits import MAX_FAULTS
from proctor_common.messages.base import BadMessage, decode
from proctor_common.messages.base import Message as Body
from proctor_common.messages.calls import OPERATIONS, Actor, Call, accept, refuse
from proctor_common.messages.views import View
from proctor_common.pg import database_unavailable, is_database_down
from proctor_controller.context import ProcessContext

log = structlog.get_logger(__name__)

CallHandler = Callable[[ProcessContext, Actor, Any], Awaitable[View | bytes]]
"""Carries out one operation: gives its view (or the view's JSON), or raises ProctorError."""


class Calls:
    """Answers all calls by a table of operations."""

    def __init__(self, context: ProcessContext, table: Mapping[str, CallHandler]) -> None:
        self._context = context
        self._table = table

    async def answer(self, message: Message) -> bytes:
        """The reply to one call. Never raises: what nobody foresaw is logged and answered as ``internal``."""
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
        handler, model = self._table.get(op), OPERATIONS.get(op)
        if handler is None or model is None:
            raise ProctorError(Code.NOT_FOUND, f"no such operation: {op}", what="operation", name=op)
        try:
            call = decode(Call, payload)
        except BadMessage as fault:
            raise ProctorError(Code.BAD_REQUEST, str(fault)) from fault
        view = await handler(self._context, call.actor, read_body(model, call))
        return view if isinstance(view, bytes) else view.encode()


def is_finite(value: Any) -> bool:
    """Whether all numbers in parsed JSON are finite: ``1e400`` and ``NaN`` are read, but cannot be stored as JSON."""
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


def read_body(model: type[Body], call: Call) -> Body:
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
