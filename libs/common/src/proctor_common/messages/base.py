"""The base of all messages: frozen, versioned, tolerant of fields that a newer peer adds. No I/O."""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

VERSION = 1
"""Version of the bus messages. A controller serves agents of its own and of the former minor version."""


class BadMessage(Exception):
    """Bytes from the bus that are not the expected message; never retried."""


class WireMessage(BaseModel):
    """A frozen message; unknown fields are ignored, so that a newer peer can add some."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def encode(self) -> bytes:
        """JSON as UTF-8; members that are None are left out (an absent member means its default)."""
        return self.__pydantic_serializer__.to_json(self, exclude_none=True)


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Encoded(Generic[T]):
    """The JSON of a T that is passed on without decoding."""

    data: bytes


M = TypeVar("M", bound=BaseModel)


def decode(model: type[M], data: bytes) -> M:
    """Decode a message.

    Raises BadMessage, which quotes no input (it may contain a secret).
    """
    try:
        return model.model_validate_json(data)
    except ValidationError as fault:
        where = "; ".join(
            f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in fault.errors(include_input=False)[:5]
        )
        raise BadMessage(f"not a {model.__name__}: {where}") from None


JsonObject = dict[str, Any]
