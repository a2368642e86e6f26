"""Limits on tries and open websockets, in bounded memory. No I/O."""

from collections import OrderedDict
from collections.abc import Callable

MAX_KEYS = 10_000


class RateLimit:
    """A token bucket per key: at most ``tries`` in ``period`` seconds.

    Keeps MAX_KEYS keys and forgets the least recently used one beyond that.
    """

    def __init__(self, tries: int, period: float, now: Callable[[], float]) -> None:
        self._tries = float(tries)
        self._rate = tries / period
        self._now = now
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> float:
        """Use one try. Returns 0 if it is allowed, else the seconds until the next one is."""
        now = self._now()
        left, since = self._buckets.pop(key, (self._tries, now))
        left = min(self._tries, left + (now - since) * self._rate)
        allowed = left >= 1.0
        self._buckets[key] = (left - 1.0 if allowed else left, now)
        if len(self._buckets) > MAX_KEYS:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1.0 - left) / self._rate

    def give_back(self, key: str) -> None:
        """Take back one use, because the try succeeded."""
        if key in self._buckets:
            left, since = self._buckets[key]
            self._buckets[key] = (min(self._tries, left + 1.0), since)


class Sockets:
    """Counts the open websockets of each token."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: dict[str, int] = {}

    @property
    def total(self) -> int:
        """The number of open websockets."""
        return sum(self._open.values())

    def take(self, key: str) -> bool:
        """Count one more. Returns False if the token is at its limit."""
        held = self._open.get(key, 0)
        if held >= self._most:
            return False
        self._open[key] = held + 1
        return True

    def release(self, key: str) -> None:
        """Count one fewer."""
        held = self._open.get(key, 0)
        if held <= 1:
            self._open.pop(key, None)
        else:
            self._open[key] = held - 1
