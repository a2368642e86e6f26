"""Faults of the bus, by what is known about delivery. No I/O.

A caller that repeats an order safely needs three cases: nothing was delivered (:class:`NoResponders`,
:class:`BusUnavailable`, :class:`NotPermitted`), delivery is unknown (:class:`BusTimeout`), the stream refused it
(:class:`StreamRefused`). For code that handles any :class:`BusError`, ``delivered`` says the same.
"""


class BusError(Exception):
    """A fault of the bus. ``delivered``: False: nobody got the message; None: unknown."""

    delivered: bool | None = None


class BusUnavailable(BusError):
    """There is no connection: nothing was sent."""

    delivered = False


class NoResponders(BusError):
    """Nobody listens on the subject (for an append: no stream takes it): nothing was delivered."""

    delivered = False


class NotPermitted(BusError):
    """The server refused the subject to this client: nothing was delivered."""

    delivered = False


class TooLarge(BusError):
    """The payload is over the server's limit: nothing was sent."""

    delivered = False


class BusTimeout(BusError):
    """No answer in time, or the connection was lost while waiting: it is unknown whether it was delivered."""


class PeerFailed(BusTimeout):
    """The message was delivered and the handler failed unexpectedly: what it did before is unknown."""


class StreamRefused(BusError):
    """JetStream answered with an error: nothing was stored. ``code``: its ``err_code`` (10077: stream full)."""

    delivered = False

    def __init__(self, code: int, description: str, *, status: int = 0) -> None:
        super().__init__(f"{description} ({code})")
        self.code = code
        self.description = description
        self.status = status

    @property
    def is_full(self) -> bool:
        """The stream or its account is full: 10077 (bytes or messages), 10023 (resources), 10047 (storage)."""
        return self.code in {10023, 10047, 10077}
