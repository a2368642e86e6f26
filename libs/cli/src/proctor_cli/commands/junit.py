"""``proctor junit``: a run as the JUnit XML that CI servers read."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from proctor_cli.options import open_client

EXAMPLES = "Example: proctor junit 17 · proctor junit 17 --output report.xml"


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("junit", epilog=EXAMPLES)(junit)


def junit(
    run: Annotated[str, typer.Argument(metavar="RUN", help="id or number of the run")],
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="write to this file, completely or not at all")
    ] = None,
) -> None:
    """Write a run as JUnit XML to standard output: a suite for its steps, and one for each part of its cleanup that
    ran.
    """
    path = f"/v1/runs/{run}/junit"
    with open_client() as client:
        if output is not None:
            client.save(path, output)
            return
        for chunk in client.stream(path):
            sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()
