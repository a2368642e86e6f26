"""A deadline for coroutine tests that holds whatever their tasks do.

pytest-timeout raises in whatever runs when its signal comes: in a coroutine test that may be any task of the loop,
which swallows it, and the test goes on for ever. So the test's own coroutine is cancelled first.
"""

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

# Left for fixtures and the report, and for pytest-timeout where the loop itself does not turn any more.
REST = 15.0


def set_deadline(item: pytest.Item, default: float) -> None:
    """Bound `item` if it is a coroutine test; `@pytest.mark.timeout(seconds)` says another limit than `default`."""
    function = getattr(item, "obj", None)
    if not isinstance(item, pytest.Function) or not inspect.iscoroutinefunction(function):
        return
    mark = item.get_closest_marker("timeout")
    limit = float(mark.args[0] if mark is not None and mark.args else default)
    if limit > 0:
        item.obj = _bounded(function, max(limit - REST, limit / 2))


def _bounded(function: Callable[..., Awaitable[None]], limit: float) -> Callable[..., Awaitable[None]]:
    @functools.wraps(function)
    async def run(**arguments: Any) -> None:
        try:
            async with asyncio.timeout(limit) as deadline:
                await function(**arguments)
        except TimeoutError:
            if not deadline.expired():
                raise
            tasks = "\n".join(f"  {task!r}" for task in asyncio.all_tasks())
            pytest.fail(f"not over after {limit:g} s; tasks:\n{tasks}")

    return run
