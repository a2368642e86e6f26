"""The launcher's own SSH server, in a thread of the test process: what `proctor up` gives its agents as a target."""

import asyncio
import threading
from uuid import uuid4

from proctor_cli.local.sshd import LoopbackSshd
from proctor_cli.local.target import HOST, target_in
from support.folders import remove_tree, short_dir
from support.processes import free_port
from support.sshd import SshTarget


class LoopbackServer:
    """One server with a loop of its own, so that a test that blocks its loop does not stop its target."""

    def __init__(self) -> None:
        self.folder = short_dir("loopback")
        self.port = free_port()
        self._loop = asyncio.new_event_loop()
        self._server = LoopbackSshd(self.folder, self.port, uuid4().hex)
        self._thread = threading.Thread(target=self._loop.run_forever, name="loopback sshd", daemon=True)

    @property
    def target(self) -> SshTarget:
        made = target_in(self.folder, self.port)
        return SshTarget(HOST, made.port, made.user, made.key, made.known_hosts)

    def start(self) -> "LoopbackServer":
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._server.start(), self._loop).result(15)
        return self

    def close(self) -> None:
        """Stop listening and kill what its commands left."""
        asyncio.run_coroutine_threadsafe(self._server.close(), self._loop).result(15)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        remove_tree(self.folder)
