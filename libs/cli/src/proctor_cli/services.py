"""``proctor api``, ``proctor controller``, ``proctor agent``: a service's own entry point, if it is installed."""

import contextlib
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

SERVICES = {
    "api": "one api process: HTTP, websockets, Swagger UI",
    "controller": "one controller process: runs, leases, agents, pools",
    "agent": "one agent process: runs plugin methods on this host",
}


def run_service_command(service: str, arguments: Sequence[str]) -> int:
    """Run the service until it ends; its exit code, or 2 if it is not installed."""
    package = f"proctor_{service}"
    try:
        module = importlib.import_module(f"{package}.__main__")
    except ModuleNotFoundError as missing:
        if missing.name not in {package, f"{package}.__main__"}:
            raise
        sys.stderr.write(
            f"proctor {service}: not installed here: install services/{service}, or all of them: libs/cli[local]\n"
        )
        return 2
    # Usage texts show argv[0].
    sys.argv = [f"proctor {service}", *arguments]
    code = module.main(list(arguments))
    return int(code or 0)


def leave(code: int) -> NoReturn:
    """End this process at once. The service has ended everything it owns; the interpreter's own clean-up would take up
    to a second.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
