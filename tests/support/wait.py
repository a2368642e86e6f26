"""Waiting for a condition, never for time: poll quickly at first, then slower, and name what did not come."""

import asyncio
import inspect
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

T = TypeVar("T")

FIRST_INTERVAL = 0.002
LONGEST_INTERVAL = 0.1


class NeverHappenedError(AssertionError):
    """The condition did not hold before the deadline; the message names it, with the last value or error."""


def _intervals() -> Iterator[float]:
    interval = FIRST_INTERVAL
    while True:
        yield interval
        interval = min(interval * 1.5, LONGEST_INTERVAL)


def _give_up(what: str, timeout: float, last: object, error: BaseException | None) -> NeverHappenedError:
    seen = f"last error: {error!r}" if error is not None else f"last value: {last!r}"
    return NeverHappenedError(f"waited {timeout:g} s for {what}; {seen}")


async def eventually(
    predicate: Callable[[], Any],
    timeout: float = 10.0,
    what: str = "",
    *,
    retry_on: tuple[type[Exception], ...] = (AssertionError,),
) -> Any:
    """The first truthy value of `predicate` (plain or async), asked again until `timeout` seconds are over.

    Exceptions of `retry_on` count as "not yet", so a predicate may assert; any other one passes at once.
    Raises NeverHappenedError.
    """
    what = what or getattr(predicate, "__qualname__", repr(predicate))
    deadline = time.monotonic() + timeout
    last: object = None
    error: Exception | None = None
    for interval in _intervals():
        try:
            value = predicate()
            if inspect.isawaitable(value):
                remaining = max(deadline - time.monotonic(), LONGEST_INTERVAL)
                value = await asyncio.wait_for(value, remaining)
            last, error = value, None
        except TimeoutError as exc:  # the predicate's own, or that the time is over
            error = exc
        except retry_on as exc:
            error = exc
        if error is None and last:
            return last
        if time.monotonic() >= deadline:
            raise _give_up(what, timeout, last, error) from error
        await asyncio.sleep(interval)
    raise AssertionError("unreachable")


def eventually_sync(
    predicate: Callable[[], T | None],
    timeout: float = 10.0,
    what: str = "",
    *,
    retry_on: tuple[type[Exception], ...] = (AssertionError,),
) -> T:
    """`eventually` for code without an event loop. Raises NeverHappenedError."""
    what = what or getattr(predicate, "__qualname__", repr(predicate))
    deadline = time.monotonic() + timeout
    last: object = None
    error: Exception | None = None
    for interval in _intervals():
        try:
            last, error = predicate(), None
        except retry_on as exc:
            error = exc
        if error is None and last:
            return cast("T", last)
        if time.monotonic() >= deadline:
            raise _give_up(what, timeout, last, error) from error
        time.sleep(interval)
    raise AssertionError("unreachable")
