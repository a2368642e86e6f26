"""How the api asks a controller: an operation is one subject (``subjects.call(name)``), one request, one answer.

The request is sent in a ``CallEnvelope``: the caller (the controller checks groups and writes the audit by it; the api
has checked token and role) and the operation's body. The answer is one byte ``+`` and the JSON of the view (which the
api may pass on without decoding), or one byte ``-`` and a ``Refusal``.
"""

from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from proctor_common.errors import Code, ProctorError
from proctor_common.messages.base import VERSION, BadMessage, JsonObject, WireMessage, decode
from proctor_common.states import Role

Q = TypeVar("Q", bound=WireMessage)
A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class Operation(Generic[Q, A]):
    """Ties request and answer to the name, for api and controller alike."""

    name: str
    request: type[Q]
    answer: type[A]
    once: bool = False
    """Must not be sent twice. All others only read, or name what they make."""


AnyOperation: TypeAlias = Operation[Any, Any]


class Actor(WireMessage):
    """The caller. ``groups`` None: not bound to groups, sees everything."""

    name: str
    role: Role
    token: str | None = None
    """The token's id, never the token."""
    groups: list[str] | None = None

    def sees(self, group: str | None) -> bool:
        """Whether the caller may see what belongs to ``group`` (None: to no group)."""
        return self.groups is None or (group is not None and group in self.groups)


class CallEnvelope(WireMessage):
    """One request."""

    v: int = VERSION
    actor: Actor
    body: JsonObject = {}


class Refusal(WireMessage):
    """Why a request was not carried out."""

    code: Code
    message: str
    details: JsonObject = {}


def accept(view: bytes) -> bytes:
    """An answer with a view's JSON."""
    return b"+" + view


def refuse(error: ProctorError) -> bytes:
    """An answer with a refusal."""
    return b"-" + Refusal(code=error.code, message=error.message, details=error.details).encode()


def answer_of(reply: bytes) -> bytes:
    """The view's JSON in an answer. Raises the controller's ProctorError, or BadMessage."""
    if reply[:1] == b"+":
        return reply[1:]
    if reply[:1] == b"-":
        refusal = decode(Refusal, reply[1:])
        raise ProctorError(refusal.code, refusal.message, **_details(refusal.details))
    raise BadMessage("an answer starts with + or -")


def _details(details: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in details.items() if k not in {"code", "message"}}
