"""The bus: request and reply, wake-ups, appends to streams, durable consumers, batched reads.

The only package that imports nats. See :class:`proctor_common.bus.bus.Bus`.
"""

from proctor_common.bus.bus import Bus
from proctor_common.bus.errors import (
    BusError,
    BusTimeout,
    BusUnavailable,
    NoResponders,
    NotPermitted,
    PeerFailed,
    StreamRefused,
    TooLarge,
)
from proctor_common.bus.shapes import (
    ACK,
    RETRY,
    TERMINATE,
    Appended,
    BusOptions,
    ConsumerSpec,
    Message,
    RePublish,
    Stored,
    StreamMessage,
    StreamSpec,
    StreamState,
    Verdict,
)
from proctor_common.bus.subscription import Subscription

__all__ = [
    "ACK",
    "RETRY",
    "TERMINATE",
    "Appended",
    "Bus",
    "BusError",
    "BusOptions",
    "BusTimeout",
    "BusUnavailable",
    "ConsumerSpec",
    "Message",
    "NoResponders",
    "NotPermitted",
    "PeerFailed",
    "RePublish",
    "Stored",
    "StreamMessage",
    "StreamRefused",
    "StreamSpec",
    "StreamState",
    "Subscription",
    "TooLarge",
    "Verdict",
]
