"""Outputs on one target that something still holds though their commands have ended: drained unread.

A server that a step leaves behind goes on printing. Its channel stays open until its run ends, so that it is not
killed by its first write; what it prints is thrown away.
"""

from collections import OrderedDict
from collections.abc import Collection

from proctor_agent.ssh.channel import CommandSession
from proctor_agent.ssh.pool import Link, Pool

MOST = 8
"""On one target; then the oldest is closed."""


class HeldOutputs:
    """The open channels of commands that have ended. Use from one event loop; ``runs`` in any thread."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._held: OrderedDict[CommandSession, tuple[str, str, Link]] = OrderedDict()

    @property
    def runs(self) -> set[str]:
        """The runs whose steps have left them."""
        return {run for run, _, _ in list(self._held.values())}

    def keep(self, run: str, marker: str, link: Link, session: CommandSession) -> str | None:
        """Drain it from here on. Gives the marker of the one that is closed for it, if any."""
        oldest = None
        if len(self._held) >= MOST:
            first, (_, oldest, _) = next(iter(self._held.items()))
            self._close(first)
        self._held[session] = (run, marker, link)
        link.held += 1
        self._pool.release(link)
        session.discard(lambda: self._forget(session))
        return oldest

    def end_runs(self, runs: Collection[str]) -> None:
        """These runs have ended: close what their steps have left open."""
        for session in [session for session, (run, _, _) in self._held.items() if run in runs]:
            self._close(session)

    def close(self) -> None:
        """Close all of them."""
        for session in list(self._held):
            self._close(session)

    def _close(self, session: CommandSession) -> None:
        session.abort()
        self._forget(session)

    def _forget(self, session: CommandSession) -> None:
        found = self._held.pop(session, None)
        if found is not None:
            self._pool.let_go(found[2])
