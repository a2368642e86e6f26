"""The built-in plugin ``build_server``: commands, facts and builds on a build machine."""

from proctor_agent.plugin import Context, Plugin, Result, method
from proctor_agent.plugins import shell, system
from proctor_agent.plugins.shell import RunShell
from proctor_agent.plugins.system import SystemInformation


class BuildServer(Plugin):
    """Builds from source."""

    description = "commands, facts and builds of a build machine"
    version = "1"

    @method(description=shell.DESCRIPTION)
    async def run_shell(self, context: Context, parameters: RunShell) -> Result:
        return await shell.run_shell(context, parameters)

    @method(description=system.DESCRIPTION)
    async def system_information(self, context: Context) -> SystemInformation:
        return await system.system_information(context)
