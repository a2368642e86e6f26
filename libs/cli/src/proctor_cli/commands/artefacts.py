"""``proctor artefacts``: the files that a run's steps left on their targets."""

from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import typer

from proctor_cli.client import Client
from proctor_cli.options import Output, OutputOption, open_client
from proctor_cli.render import as_json, table, talk

EXAMPLES = "Examples: proctor artefacts 17 · proctor artefacts 17 --save reports"
SHOWN_DIGEST = 12


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("artefacts", epilog=EXAMPLES)(artefacts)


def artefacts(
    run: Annotated[str, typer.Argument(metavar="RUN", help="id or number of the run")],
    save: Annotated[
        Path | None, typer.Option("--save", metavar="DIR", help="download all of them into this folder")
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the files that a run's steps left on their targets; with --save download them."""
    with open_client() as client:
        found = list(client.items(f"/v1/runs/{run}/artefacts"))
        if output is Output.JSON:
            as_json(found)
        else:
            rows = [
                [each["id"], each["step"], each["attempt"], each["host"], each["size"], each["sha256"][:SHOWN_DIGEST]]
                for each in found
            ]
            paths = [each["path"] for each in found]
            titles = ["id", "step", "attempt", "host", "bytes", "sha256", "path"]
            table(titles, [[*row, path] for row, path in zip(rows, paths, strict=True)])
        if save is not None:
            for each in found:
                talk(f"{each['path']} is saved as {_save(client, run, each, save)}")


def _save(client: Client, run: str, about: dict[str, Any], folder: Path) -> Path:
    """Download one. The id before its name separates files of different steps. Raises Usage, Refused, Unreachable."""
    file = folder / f"{about['id']}-{PurePosixPath(about['path']).name}"
    client.save(f"/v1/runs/{run}/artefacts/{about['id']}", file)
    return file
