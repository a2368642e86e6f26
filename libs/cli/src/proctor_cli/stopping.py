"""SIGTERM and SIGHUP as exceptions, like Ctrl-C; and a time limit for the work after one."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(BaseException):
    """The process was asked to end (SIGTERM), or its terminal was closed (SIGHUP)."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class TimeIsUp(BaseException):
    """The work within ``time_left`` took too long."""


@contextmanager
def signals_raised() -> Iterator[None]:
    """Raise Terminated at SIGTERM and SIGHUP. One that was ignored at the start (nohup) stays ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python delivers signals only to the main thread
        return
    former = {
        number: signal.getsignal(number)
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        for number in former:
            signal.signal(number, _raise)
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextmanager
def time_left(seconds: float) -> Iterator[None]:
    """Raise TimeIsUp in the block after ``seconds``. Only in the main thread."""
    former = signal.signal(signal.SIGALRM, _time_is_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def _raise(number: int, _frame: FrameType | None) -> None:
    raise Terminated(number)


def _time_is_up(_number: int, _frame: FrameType | None) -> None:
    raise TimeIsUp
