"""The built-in plugin ``build_server``: commands, facts and builds on a build machine."""

from typing import Annotated, ClassVar

from pydantic import BaseModel, Field

from proctor_agent.plugin import Context, Plugin, Result, method
from proctor_agent.plugins import build, shell, system
from proctor_agent.plugins.build import Build, BuildResult
from proctor_agent.plugins.shell import RunShell
from proctor_agent.plugins.system import SystemInformation


class Settings(BaseModel):
    """The agent's settings for this plugin."""

    workspaces: Annotated[str, Field(min_length=1, max_length=1000, pattern="^[^\\x00\\n-][^\\x00\\n]*$")] = (
        "proctor-workspaces"
    )
    """Folder on the target in which each build gets its own; a relative path starts at the account's home."""
    protocols: Annotated[list[Annotated[str, Field(pattern="^[a-z]{1,20}$")]], Field(max_length=20)] = [
        "https",
        "ssh",
        "http",
        "git",
    ]
    """Protocols that git may use. ``file`` and ``ext`` would give access to the target itself and are off."""
    keep_days: Annotated[int, Field(ge=1, le=3650)] = 7
    """How many days workspaces are kept."""


class BuildServer(Plugin):
    """Builds from source."""

    description = "commands, facts and builds of a build machine"
    version = "1"
    Settings: ClassVar[type[BaseModel] | None] = Settings

    @method(description=shell.DESCRIPTION)
    async def run_shell(self, context: Context, parameters: RunShell) -> Result:
        return await shell.run_shell(context, parameters)

    @method(description=system.DESCRIPTION)
    async def system_information(self, context: Context) -> SystemInformation:
        return await system.system_information(context)

    @method(description=build.DESCRIPTION)
    async def build(self, context: Context, parameters: Build) -> BuildResult:
        settings: Settings = self.settings
        folders = build.WorkspaceSettings(settings.workspaces, tuple(settings.protocols), settings.keep_days)
        return await build.run_build(context, parameters, folders)
