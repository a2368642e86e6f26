"""The built-in plugins on one target, called as the agent's core calls them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from proctor_agent.attempt import Outcome
from proctor_agent.loader import load
from proctor_agent.plugin_host import PluginWorkbench
from proctor_agent.ssh import Targets
from support.ssh_log import RecordedAttempt


class Bench:
    """A workbench with the built-in plugins and one target."""

    def __init__(self, targets: Targets, folder: Path) -> None:
        self.folder = folder
        self.targets = targets
        settings = {"build_server": {"workspaces": str(folder / "work"), "protocols": ["file"]}}
        loaded = load(settings=settings)
        assert loaded.errors == {}
        self.workbench = PluginWorkbench(loaded, targets)

    def attempt(self, **about: Any) -> RecordedAttempt:
        return RecordedAttempt(self.folder, **about)

    async def call(
        self, name: str, parameters: Mapping[str, Any], attempt: RecordedAttempt | None = None
    ) -> tuple[Outcome, RecordedAttempt]:
        attempt = attempt or self.attempt()
        plugin, _, method = name.partition(".")
        assert self.workbench.check(plugin, method, attempt.target, dict(parameters)) == ""
        return await self.workbench.call(attempt, plugin, method, dict(parameters)), attempt
