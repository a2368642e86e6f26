"""Commands on targets over SSH: the only part of the agent that imports asyncssh.

``Targets`` keeps connections warm and runs ``Command``s on them; ``end_tree`` ends what a command left behind.
"""

from proctor_agent.ssh.command import Command, Exit
from proctor_agent.ssh.faults import SshFault
from proctor_agent.ssh.targets import Targets
from proctor_agent.ssh.tree import end_tree, find_left

__all__ = ["Command", "Exit", "SshFault", "Targets", "end_tree", "find_left"]
