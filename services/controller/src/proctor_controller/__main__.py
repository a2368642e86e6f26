"""``proctor-controller``, ``python -m proctor_controller``."""

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import uvloop

from proctor_common.log_config import configure_logging
from proctor_common.service import ConfigurationError, Stop, report, run_service
from proctor_common.settings import load_settings
from proctor_controller.settings import ControllerSettings


def main(argv: Sequence[str] | None = None) -> int:
    """Run the controller with these arguments (None: those of the process). Returns the exit code: 0 if it was asked to
    end and did; 1 if it cannot go on; 2 if arguments or settings are wrong.
    """
    parser = argparse.ArgumentParser(
        prog="proctor-controller",
        description="Proctor's control plane: runs, leases, agents, groups. Any number may run at once.",
        epilog="Every setting may also come from the environment as PROCTOR_CONTROLLER_<NAME>.",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings as TOML")
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('proctor-controller')}")
    arguments = parser.parse_args(argv)
    try:
        settings = load_settings(ControllerSettings, config=arguments.config)
    except ConfigurationError as fault:
        return report("controller", fault)
    configure_logging("controller", settings.log_level)

    async def start(stop: Stop) -> None:
        # Imported here, so that --help and faults of the settings do not wait for the rest to be loaded.
        from proctor_controller.main import run

        await run(settings, stop)

    # Half of a controller's work is I/O with PostgreSQL and NATS: this loop saves a fifth of it.
    return run_service("controller", start, loop_factory=uvloop.new_event_loop)


if __name__ == "__main__":
    sys.exit(main())
