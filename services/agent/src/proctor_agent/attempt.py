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
    """An SSH endpoint from the agent's settings; times in seconds."""

    name: str
    host: str
    port: int = 22
    user: str = ""
    """Empty: the agent's own user name."""
    key_file: Path | None = None
    """None: the user's default keys."""
    known_hosts_file: Path | None = None
    """None: ``~/.ssh/known_hosts``. Host keys are always checked."""
    waiting_shell: bool = True
    """Start the next command's shell in advance, after each command."""
    legacy_algorithms: bool = False
    """Also accept ciphers and key exchanges that are no longer safe."""
    connect_timeout: float = 10.0
    """For the TCP connection."""
    login_timeout: float = 20.0
    start_timeout: float = 30.0
    """For the start of a command."""
    reconnect_timeout: float = 60.0
    """How long, beyond the grace, to try to reach what a lost connection left behind."""
    connection_age: float = 900.0
    """An older connection takes no further command."""


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """A process group on a target."""

    target: str
    pgid: int
    started: int
    """Start time of its leader in clock ticks since the target's boot (field 22 of ``/proc/<pgid>/stat``; 0: unknown),
    so that a process that reuses the number is never killed."""
    boot: str = field(default="", compare=False)
    """Id of the target's boot ("": unknown): after another boot the group is gone."""


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
        """The run that it belongs to: outputs that its commands leave open stay open until the run ends."""
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
        """Whether the text contains a secret value."""
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
        """Append bytes (any length, cut anywhere) to the attempt's log. Waits while the log cannot take more; read no
        further meanwhile. Raises only CancelledError.
        """
        ...

    async def group_started(self, group: ProcessGroup) -> None:
        """Record a process group, so that it can be killed even after the agent was restarted."""
        ...

    def connection_lost(self, target: str) -> None:
        """A connection was lost while a command ran there: what it left has to be looked for."""
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
        """Why such an order must be refused, or "" if it can run. Fast, no I/O; the reason quotes no parameter's value,
        which may be a secret.
        """
        ...

    async def call(self, attempt: Attempt, plugin: str, method: str, parameters: JsonObject) -> Outcome:
        """Run a method to its end. Exceptions of the method come out unchanged (the core makes them an ``error``),
        except those that the public plugin API defines as an outcome.
        """
        ...

    async def find_artefacts(self, attempt: Attempt, patterns: Sequence[str]) -> tuple[list[JsonObject], list[str]]:
        """The files on the attempt's target that match, as ``{path, size, sha256}``, and the patterns that match
        nothing. Raises LookupError with the reason if they cannot be listed.
        """
        ...

    async def read_artefact(self, target: str | None, path: str, offset: int, length: int) -> tuple[int, bytes]:
        """The size of a file on a target now, and at most ``length`` bytes of it from ``offset``. Raises
        FileNotFoundError; OSError with the reason if the target cannot be reached.
        """
        ...

    async def stop_tree(
        self, target: str, groups: Sequence[ProcessGroup], marker: str, grace_s: float, *, lost: bool = False
    ) -> bool | None:
        """Send SIGTERM to the groups on one target and to every process whose environment has the marker, wait up to
        ``grace_s`` seconds, send SIGKILL, look again. True: nothing is left; False: something is; None: unknown, the
        target cannot be reached. Takes at most ``grace_s`` + 8 s; after a ``lost`` connection ``grace_s`` plus the
        target's ``reconnect_timeout``.
        """
        ...

    async def find_left(self, target: str, groups: Sequence[ProcessGroup], marker: str) -> list[str] | None:
        """What an attempt left on one target: a description of each process; None if the target cannot be reached."""
        ...

    @property
    def held_runs(self) -> set[str]:
        """The runs whose steps left a process that still holds an output open; may be read in another thread."""
        ...

    def end_runs(self, runs: Sequence[str]) -> None:
        """These runs have ended: close the outputs that their steps left open."""
        ...

    async def close(self) -> None:
        """Close the warm connections."""
        ...
