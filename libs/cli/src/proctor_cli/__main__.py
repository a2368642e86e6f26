"""The command ``proctor``."""

import os
import sys
from collections.abc import Sequence

from proctor_cli.services import SERVICES, leave, run_service_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. A service starts without loading the other commands."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # A stream that was closed before the start is None: then output is dropped, and nothing is read.
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115 - it stays open
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115
    if words and words[0] in SERVICES:
        code = run_service_command(words[0], words[1:])
        if arguments is None:
            leave(code)
        return code
    try:
        from proctor_cli.app import run_app

        return run_app(words)
    except KeyboardInterrupt:
        # A running command handles it; this came while the modules were being loaded.
        print("proctor: stopped before anything was started", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
