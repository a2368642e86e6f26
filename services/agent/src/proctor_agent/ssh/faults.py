"""What can go wrong between the agent and a target. No I/O."""

from typing import Any

NO_SUCH_TARGET = "no_such_target"
UNREACHABLE = "target_unreachable"
HOST_KEY_UNKNOWN = "host_key_unknown"
HOST_KEY_CHANGED = "host_key_changed"
KEY_UNUSABLE = "ssh_key_unusable"
DENIED = "ssh_denied"
CHANNEL_REFUSED = "ssh_channel_refused"
CONNECTION_LOST = "connection_lost"
NOT_STARTED = "not_started"
START_NOT_SEEN = "start_not_seen"
NO_SUCH_DIRECTORY = "no_such_directory"
BAD_COMMAND = "bad_command"


class SshFault(Exception):
    """A fault with a kind (one of this module's words), a sentence that names it and the next step, and data.

    ``connection_lost`` and ``start_not_seen`` are the only ones after which a command may have run.
    """

    def __init__(self, kind: str, message: str, **data: Any) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.data = data
