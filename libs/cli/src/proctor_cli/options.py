"""The options that commands share, and the client that they all open."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from proctor_cli.client import Client
from proctor_cli.endpoint import find_endpoint
from proctor_cli.faults import Usage


class Output(StrEnum):
    """How a command shows what it read."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[Output, typer.Option("-o", "--output", help="table for people, json for scripts")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=100_000, help="at most so many rows")]


class Where:
    """What the global options say of the api; the environment and the local system's file fill in the rest."""

    url: str | None = None
    token: str | None = None


def set_where(url: str | None, token_file: Path | None) -> None:
    """Keep the global options for the command that follows. Raises Usage where the token file cannot be read."""
    Where.url = url
    if token_file is not None:
        try:
            Where.token = token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as fault:
            raise Usage(f"cannot read the token file: {fault}") from None


@contextmanager
def open_client() -> Iterator[Client]:
    """A client for the api that the options, the environment or the local system name."""
    with Client(find_endpoint(Where.url, Where.token)) as client:
        yield client
