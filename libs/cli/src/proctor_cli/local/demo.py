"""``proctor demo``: a temporary local system that runs the smoke plan, shown live, and is removed afterwards."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from proctor_cli.local.addresses import HttpAddress
from proctor_cli.local.faults import CannotStart
from proctor_cli.local.processes import Account, prepare_child, proctor_command
from proctor_cli.local.system import LocalSystem, Options
from proctor_cli.local.up import run_up

PLAN = Path("examples") / "smoke.yaml"


def run_demo() -> int:
    """Returns exit code 0 if the run passed and everything is stopped and removed. Raises CannotStart."""
    plan = find_plan()
    folder = Path(tempfile.mkdtemp(prefix="proctor-demo-"))
    try:
        tell(f"starting the local system in {folder}")
        options = Options(data=folder / "data", http=HttpAddress("127.0.0.1", 0), announce=False)
        if os.geteuid() == 0:
            folder.chmod(0o711)  # PostgreSQL does not run as root; private files have folders of their own
        return run_up(options, lambda system: _run_plan(system, plan), tell)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def find_plan() -> Path:
    """The smoke plan, in the current folder or in the repository this is installed from. Raises CannotStart."""
    for root in (Path.cwd(), *Path(__file__).resolve().parents):
        if (root / PLAN).is_file():
            return root / PLAN
    raise CannotStart(f"proctor demo runs {PLAN}, which comes with the repository: start it there")


def tell(line: str) -> None:
    """Print one line on standard error."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"demo: {line}\n")
        sys.stderr.flush()


async def _run_plan(system: LocalSystem, plan: Path) -> int:
    command = proctor_command(("run", str(plan)))
    tell(f"{system.url} is ready; running {plan.name}")
    environment = {**os.environ, "PROCTOR_URL": system.url, "PROCTOR_TOKEN": system.token or ""}
    client = await asyncio.create_subprocess_exec(
        *command,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C ends the demo, not only its client
        preexec_fn=prepare_child(Account.OWN, signal.SIGKILL),
    )
    try:
        code = await client.wait()
    finally:
        if client.returncode is None:
            client.kill()
            await client.wait()
    tell("passed" if code == 0 else f"not passed (exit code {code})")
    return code
