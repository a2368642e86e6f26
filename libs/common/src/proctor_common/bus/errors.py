"""What can go wrong on the bus, by what is known about delivery. No I/O.

A caller that may repeat an order safely only needs three cases: nothing was delivered (:class:`NoResponders`,
:class:`BusUnavailable`, :class:`NotPermitted`), it is unknown (:class:`BusTimeout`), the stream refused it
(:class:`StreamRefused`). ``delivered`` says the same for code that handles :class:`BusError` as a whole.
"""


class BusError(Exception):
    """A fault of the bus. ``delivered``: False = nobody has got the message, None = unknown."""

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
    """No answer in time, or the connection was lost while waiting for it: the message may have been delivered or
    not.
    """


class PeerFailed(BusTimeout):
    """The message was delivered and the handler failed with an unforeseen error: what it did before that is
    unknown.
    """


class StreamRefused(BusError):
    """JetStream answered with an error: nothing was stored. ``code`` is JetStream's ``err_code`` (10077 = stream
    full).
    """

    delivered = False

    def __init__(self, code: int, description: str, *, status: int = 0) -> None:
        super().__init__(f"{description} ({code})")
        self.code = code
        self.description = description
        self.status = status

    @property
    def is_full(self) -> bool:
        """The stream or its account has no room: 10077 (maximum bytes/messages), 10023 (resources), 10047
        (storage).
        """
        return self.code in {10023, 10047, 10077}
