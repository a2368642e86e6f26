"""The seam between the agent's core and its plugins: what each side may ask of the other. No I/O.

The core (supervisor, execution) owns an attempt: its log, its journal, its clock, its end. The plugin side (loader,
ssh, plugin) owns methods and connections. An attempt flows like this::

    core                                       plugin side
    Workbench.check(...)  ""  ───────────────▶ is there such a method, such a target, do the parameters fit
    Workbench.call(attempt, plugin, ...) ────▶ builds the Context, awaits the method
        attempt.write(source, bytes)  ◀─────── everything that the commands print (waits under back-pressure)
        attempt.group_started(group)  ◀─────── after each start of a remote command
        attempt.group_ended(group)    ◀─────── after its end
    attempt.stopping is set, then
    Workbench.stop_tree(...)  ───────────────▶ SIGTERM, grace, SIGKILL, look again
    (the method's task is cancelled if it has not returned by then)
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from proctor_common.messages.base import JsonObject
from proctor_common.messages.events import MethodError, PluginSpec
from proctor_common.states import Source, StepResult

ATTEMPT_ENV = "PROCTOR_ATTEMPT"
"""Environment variable of every remote command: ``<step>.<attempt>``, by which its whole tree can be found."""


@dataclass(frozen=True, slots=True)
class Target:
    """An SSH endpoint from the agent's settings.

    ``key_file`` None: the user's default keys. ``known_hosts_file`` None: ``~/.ssh/known_hosts``; there is no way to
    switch the check off. ``waiting_shell``: after each command the next one's shell is started in advance ·
    ``legacy_algorithms``: ciphers and key exchanges that are no longer safe are taken too · ``connect_timeout``,
    ``login_timeout``, ``start_timeout``: seconds that the TCP connection, the login and the start of a command may
    take · ``reconnect_timeout``: and, beyond the grace, what a lost connection left behind may be looked for ·
    ``connection_age``: seconds after which a connection takes no further command.
    """

    name: str
    host: str
    port: int = 22
    user: str = ""
    key_file: Path | None = None
    known_hosts_file: Path | None = None
    waiting_shell: bool = True
    legacy_algorithms: bool = False
    connect_timeout: float = 10.0
    login_timeout: float = 20.0
    start_timeout: float = 30.0
    reconnect_timeout: float = 60.0
    connection_age: float = 900.0


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """A process group on a target. ``started``: start time of its leader in clock ticks since the target's boot
    (field 22 of ``/proc/<pgid>/stat``; 0 = unknown), so that a reused number is never killed.
    """

    target: str
    pgid: int
    started: int
    boot: str = field(default="", compare=False)
    """Id of the boot of the target that it belongs to ("" = unknown): after another one it is gone."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a method ended by itself: passed, failed or error. ``output`` is what it returned (JSON)."""

    result: StepResult
    output: JsonObject = field(default_factory=dict)
    reason: str = ""
    exit_code: int | None = None
    error: MethodError | None = None


class Attempt(Protocol):
    """What the core gives to a method's Context. All calls from the agent's main loop."""

    @property
    def marker(self) -> str:
        """Value of ATTEMPT_ENV: ``<step>.<attempt>``."""
        ...

    @property
    def run(self) -> str:
        """The run that it belongs to: what a command leaves open is kept open until that ends."""
        ...

    @property
    def target(self) -> str | None:
        """Name of the target that the order asks for; None = the default."""
        ...

    @property
    def env(self) -> Mapping[str, str]:
        """Environment that the order adds to each command."""
        ...

    def hides(self, text: str) -> bool:
        """Whether the text holds a value that nobody may see."""
        ...

    @property
    def deadline(self) -> float:
        """``asyncio`` loop time at which the attempt is stopped as timed out."""
        ...

    @property
    def stopping(self) -> asyncio.Event:
        """Set when the attempt is cancelled or timed out: start no further command."""
        ...

    @property
    def scratch(self) -> Path:
        """A private folder (0700) on the agent's host for this attempt, made on first use, removed at its end."""
        ...

    async def write(self, source: Source, data: bytes) -> None:
        """Append bytes (any length, cut anywhere) to the attempt's log. Waits while the log cannot take more: do not
        read on meanwhile. Raises nothing but CancelledError.
        """
        ...

    async def group_started(self, group: ProcessGroup) -> None:
        """Record a process group, so that even the agent's next life can kill it."""
        ...

    def connection_lost(self, target: str) -> None:
        """A connection was lost in the middle of a command there: what it left has to be looked for."""
        ...

    async def group_ended(self, group: ProcessGroup) -> None:
        """The group's command has ended by itself."""
        ...


class Workbench(Protocol):
    """What the plugin side offers to the core. One for the process; built in main.py from the settings."""

    @property
    def plugins(self) -> Mapping[str, PluginSpec]:
        """The loaded plugins, as they are registered."""
        ...

    @property
    def load_errors(self) -> Mapping[str, str]:
        """Plugins that failed to load, with the reason in one line."""
        ...

    def check(self, plugin: str, method: str, target: str | None, parameters: JsonObject) -> str:
        """Why such an order must be refused, naming what is wrong; "" where it can run. Quick, no I/O, and the
        reason quotes no parameter's value (it may be a secret).
        """
        ...

    async def call(self, attempt: Attempt, plugin: str, method: str, parameters: JsonObject) -> Outcome:
        """Run a method to its end. What the method raises comes out as it is (the core makes it an ``error``),
        except what the public plugin API defines as an outcome.
        """
        ...

    async def find_artefacts(self, attempt: Attempt, patterns: Sequence[str]) -> tuple[list[JsonObject], list[str]]:
        """The files on the attempt's target that match, as ``{path, size, sha256}``, and the patterns that match none.
        Raises LookupError, which says why they cannot be listed.
        """
        ...

    async def read_artefact(self, target: str | None, path: str, offset: int, length: int) -> tuple[int, bytes]:
        """The size of a file on a target now, and at most ``length`` bytes of it from ``offset``. Raises
        FileNotFoundError; OSError, which says why the target cannot be reached.
        """
        ...

    async def stop_tree(
        self, target: str, groups: Sequence[ProcessGroup], marker: str, grace_s: float, *, lost: bool = False
    ) -> bool | None:
        """SIGTERM to the groups on one target and to every process whose environment has the marker, up to
        ``grace_s`` seconds, SIGKILL, look again. True: nothing is left; False: something is; None: could not be
        looked (target unreachable). Bounded by ``grace_s`` + 8 s; after a
        ``lost`` connection by ``grace_s`` and the target's ``reconnect_timeout``.
        """
        ...

    async def find_left(self, target: str, groups: Sequence[ProcessGroup], marker: str) -> list[str] | None:
        """What of an attempt is on one target: each process in words; None where it cannot be looked."""
        ...

    @property
    def held_runs(self) -> set[str]:
        """The runs whose steps have left something that still holds an output; may be read in another thread."""
        ...

    def end_runs(self, runs: Sequence[str]) -> None:
        """These runs have ended: the outputs that their steps left open are closed."""
        ...

    async def close(self) -> None:
        """Close the warm connections."""
        ...
