"""How many spares of each type to make, to delete and to replace. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stock:
    """The spares of one type: idle ones, and those in creation."""

    type: str
    target: int
    ready: int = 0
    creating: int = 0
    intent: int = 0

    @property
    def pending(self) -> int:
        """Those in creation."""
        return self.creating + self.intent

    @property
    def deficit(self) -> int:
        """How many are missing beyond those in creation."""
        return max(0, self.target - self.ready - self.pending)

    @property
    def surplus(self) -> int:
        """How many idle ones are too many."""
        return min(self.ready, max(0, self.ready + self.pending - self.target))


def plan_refill(stocks: Sequence[Stock], *, concurrency: int, spare_room: int | None) -> dict[str, int]:
    """How many spares of each type to create now: the emptiest pool first, one at a time.

    ``concurrency``: how many may be in creation at once; ``spare_room``: how many more there may be at all, by quota
    and total; None: no limit.
    """
    free = max(0, concurrency - sum(stock.pending for stock in stocks))
    if spare_room is not None:
        free = min(free, max(0, spare_room))
    asked: dict[str, int] = {}
    for _ in range(free):
        needy = [stock for stock in stocks if stock.deficit > asked.get(stock.type, 0)]
        if not needy:
            break
        emptiest = min(needy, key=lambda s: ((s.ready + s.pending + asked.get(s.type, 0)) / s.target, s.type))
        asked[emptiest.type] = asked.get(emptiest.type, 0) + 1
    return asked


def plan_trim(stocks: Sequence[Stock]) -> dict[str, int]:
    """How many idle spares of each type are too many because a target was lowered."""
    return {stock.type: stock.surplus for stock in stocks if stock.surplus}


def plan_renewal(stock: Stock, old: int) -> int:
    """How many of ``old`` spares over their age to replace now: at most a quarter of the pool at a time."""
    if stock.deficit or stock.pending:
        return 0
    return min(old, max(1, stock.target // 4))


def hit_rate(claims: int, hits: int) -> float | None:
    """The share of claims that got a spare; None before the first."""
    return round(hits / claims, 4) if claims else None


BUCKETS = tuple(0.0005 * 2 ** (i / 2) for i in range(40))
"""Upper ends, in seconds, of the histogram of claims: 0.5 ms to 6 minutes, each 1.41 times the one before."""


def bucket_of(seconds: float) -> int:
    """The bucket's index; longer times count in the last one."""
    return next((i for i, end in enumerate(BUCKETS) if seconds <= end), len(BUCKETS) - 1)


def quantile(counts: Sequence[int], share: float) -> float | None:
    """Upper end of the bucket, in seconds, that ``share`` of the counted claims do not exceed; None without claims."""
    total = sum(counts)
    if not total:
        return None
    seen = 0
    for count, end in zip(counts, BUCKETS, strict=False):
        seen += count
        if seen >= share * total:
            return round(end, 5)
    return round(BUCKETS[-1], 5)


def describe(asked: Mapping[str, int]) -> str:
    """``2 dhcp, 11 igw``"""
    return ", ".join(f"{count} {type}" for type, count in sorted(asked.items()))
