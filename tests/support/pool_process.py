"""Controllers that keep the pool and do nothing else, as processes that are made and killed quickly.

A parent (`python -m support.pool_process`) has loaded everything and forks one for each line that it is told. So a
start costs some 50 ms, and SIGKILL is what it is in life: nothing is tidied up.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from proctor_cli.local.processes import Account, prepare_child
from proctor_common.bus import Bus, BusOptions
from proctor_common.clock import SystemClock
from proctor_common.log_config import configure_logging
from proctor_common.pg import make_engine
from proctor_controller.domain.volumes import breaker, volume
from proctor_controller.duties.duty import Duty
from proctor_controller.pool import keeper, replenisher, throttle, volume_worker
from proctor_controller.pool.pool import VolumePool
from proctor_controller.volumes.cinder import backend as cinder
from proctor_controller.volumes.cinder.source import CloudSource

TESTS = Path(__file__).parents[1]
LEASE = 0.6


class Keepers:
    """The processes; `log` collects what they write."""

    def __init__(self, dsn: str, nats_url: str, settings: Path, log: Path) -> None:
        self._told = {"dsn": dsn, "nats": nats_url, "settings": str(settings), "log": str(log)}
        self.log = log
        self.pids: list[int] = []
        self.started = 0
        self._parent = subprocess.Popen(
            [sys.executable, "-m", "support.pool_process"],
            cwd=TESTS,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("ab"),
            text=True,
            preexec_fn=prepare_child(Account.OWN, signal.SIGKILL),  # noqa: PLW1509
        )

    def start(self) -> int:
        """One more; its pid."""
        assert self._parent.stdin is not None and self._parent.stdout is not None
        self._parent.stdin.write(json.dumps(self._told) + "\n")
        self._parent.stdin.flush()
        answer = self._parent.stdout.readline()
        assert answer, self.log.read_text()[-3000:]
        pid = int(answer)
        self.pids.append(pid)
        self.started += 1
        return pid

    def kill(self, *pids: int) -> None:
        """SIGKILL these, or all."""
        for pid in pids or tuple(self.pids):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ValueError):
                self.pids.remove(pid)

    def close(self) -> None:
        self.kill()
        self._parent.kill()
        self._parent.wait(10)


def hasten() -> None:
    """What takes seconds or minutes in life takes tenths of a second here."""
    volume.LOOK_FOR = timedelta(seconds=0.6)
    volume.STUCK_AFTER = timedelta(seconds=1.5)
    breaker.PROBE_EVERY = timedelta(seconds=0.3)
    keeper.TICK = 0.2
    throttle.BUSY_SECONDS, throttle.LONGEST_REST = 0.1, 0.2
    replenisher.DEMAND_AGAIN = 0.3
    volume_worker.FIRST_WAIT, volume_worker.LONGEST_WAIT = 0.02, 0.4
    opened = cinder.open_cinder

    def open_quickly(source: CloudSource, installation: str) -> cinder.CinderBackend:
        return opened(replace(source, connect_timeout=1.0, call_timeout=0.6), installation)

    cinder.open_cinder = open_quickly


async def keep(told: dict[str, Any]) -> None:
    clock = SystemClock()
    database = make_engine(told["dsn"], application_name="keeper of a test", pool_size=6, max_overflow=4)
    async with Bus(BusOptions((told["nats"],), name="keeper of a test", reconnect_wait=(0.05, 0.2))) as bus:
        pool = VolumePool(database, bus, clock, file=Path(told["settings"]), folder=None)
        await pool.start()
        owner = f"keeper {os.getpid()}"
        duty = Duty("pool", pool.keeper.turn, database=database, owner=owner, clock=clock, interval=0.05, lease=LEASE)
        await duty.run()


def _child(told: dict[str, Any]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(told["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for stream in (1, 2):
        os.dup2(log, stream)
    configure_logging("keeper", "info")
    try:
        asyncio.run(keep(told))
    finally:
        os._exit(1)


def main() -> None:
    # The libraries of the extra too: loading them is the slow part of a first login.
    import keystoneauth1.loading
    import openstack.config  # noqa: F401

    keystoneauth1.loading.get_plugin_loader("password")
    hasten()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    bind = prepare_child(Account.OWN, signal.SIGKILL)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            bind()
            _child(json.loads(line))
        print(pid, flush=True)


if __name__ == "__main__":
    main()
