"""Entry point of an api process: ``proctor-api``, ``python -m proctor_api`` and ``proctor api``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from proctor_api.http.listening import bind
from proctor_api.settings import ApiSettings
from proctor_common.log_config import configure_logging
from proctor_common.service import StartError, Stop, report, run_service
from proctor_common.settings import load_settings


def _list_settings() -> str:
    lines = []
    for name, info in ApiSettings.model_fields.items():
        secret = " (or in the file that {name}_file names)" if "Secret" in str(info.annotation) else ""
        default = "no default" if info.is_required() else f"default {info.default!r}"
        lines.append(f"  {name}: {default}{secret.format(name=name)}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the service. Returns the exit code: 0 stopped, 1 failed, 2 wrong settings."""
    parser = argparse.ArgumentParser(
        prog="proctor api",
        description="Proctor's HTTP and websocket service.",
        epilog=f"settings, in the file or in the environment as PROCTOR_API_<NAME>:\n{_list_settings()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings as TOML")
    arguments = parser.parse_args(argv)
    try:
        settings = load_settings(ApiSettings, config=arguments.config)
    except StartError as fault:
        return report("api", fault)
    configure_logging("api", settings.log_level)

    async def run(stop: Stop) -> None:
        listening = bind(settings.address)
        from proctor_api.main import serve

        await serve(settings, stop, listening)

    # Requests are mostly round trips to PostgreSQL and NATS, which are faster on uvloop.
    return run_service("api", run, loop_factory=uvloop.new_event_loop)


if __name__ == "__main__":
    sys.exit(main())
