"""For the tests of a plugin: call a method as an agent does, on a real target, without an agent."""

import asyncio
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proctor_agent.attempt import Outcome, ProcessGroup, Target
from proctor_agent.loader import LoadedPlugins, prepare
from proctor_agent.plugin import Plugin
from proctor_agent.plugin_host import PluginWorkbench
from proctor_agent.ssh import Targets
from proctor_common.states import Source

__all__ = ["Target", "Tried", "try_method"]


@dataclass(frozen=True, slots=True)
class Tried:
    """What a method did."""

    outcome: Outcome
    """Result, output, reason, error."""
    stdout: bytes
    """What the step's log has of this source; ``stderr`` and ``system`` likewise."""
    stderr: bytes
    system: bytes


async def try_method(
    plugin: type[Plugin],
    method: str,
    parameters: Mapping[str, Any],
    *,
    target: Target,
    settings: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 60.0,
) -> Tried:
    """Load the plugin, check the parameters and run the method on ``target``. ``settings``: the plugin's own. ``env``:
    the step's environment variables. The outcome of a method that failed is returned, not raised.

    After ``timeout_s`` seconds the method is stopped like a cancelled step, and TimeoutError is raised. Raises
    UnusablePlugin if an agent would not load the plugin.
    """
    loaded = LoadedPlugins({"plugin": prepare(plugin, settings or {})}, {})
    workbench = PluginWorkbench(loaded, Targets({target.name: target}))
    try:
        with tempfile.TemporaryDirectory() as scratch:
            attempt = _Attempt(Path(scratch), dict(env or {}), timeout_s)
            call = asyncio.create_task(workbench.call(attempt, "plugin", method, dict(parameters)))
            done, _ = await asyncio.wait({call}, timeout=timeout_s)
            if not done:
                attempt.stopping.set()
                await workbench.stop_tree(target.name, attempt.groups, attempt.marker, 1.0)
                await asyncio.wait({call}, timeout=5.0)
                call.cancel()
                raise TimeoutError(f"{method} did not end within {timeout_s:g} s")
            log = {source: b"".join(data for kind, data in attempt.log if kind is source) for source in Source}
            return Tried(call.result(), log[Source.STDOUT], log[Source.STDERR], log[Source.SYSTEM])
    finally:
        await workbench.close()


class _Attempt:
    """An attempt (attempt.Attempt) that keeps its log in memory."""

    marker = "try.1"
    run = "try"
    target = None

    def __init__(self, scratch: Path, env: dict[str, str], timeout_s: float) -> None:
        self.scratch = scratch
        self.env = env
        self.deadline = asyncio.get_running_loop().time() + timeout_s
        self.stopping = asyncio.Event()
        self.log: list[tuple[Source, bytes]] = []
        self.groups: list[ProcessGroup] = []

    def hides(self, text: str) -> bool:
        return False

    async def write(self, source: Source, data: bytes) -> None:
        self.log.append((source, data))

    async def group_started(self, group: ProcessGroup) -> None:
        self.groups.append(group)

    def connection_lost(self, target: str) -> None:
        pass

    async def group_ended(self, group: ProcessGroup) -> None:
        self.groups.remove(group)
