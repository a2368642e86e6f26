"""The options that commands share, and the client that they use."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from proctor_cli.client import Client
from proctor_cli.endpoint import checked_token, find_endpoint
from proctor_cli.faults import Usage


class Output(StrEnum):
    """How a command shows what it read."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[Output, typer.Option("-o", "--output", help="table for people, json for scripts")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=100_000, help="at most so many rows")]


MAX_TOKEN_FILE = 64 * 1024
"""Characters of a token file that are read."""


class ApiOptions:
    """The api by the global options; the environment and the local system's file complete it."""

    url: str | None = None
    token: str | None = None


def set_api_options(url: str | None, token_file: Path | None) -> None:
    """Store the global options for the command that follows. Raises Usage if the token file cannot be read."""
    ApiOptions.url = url
    if token_file is not None:
        try:
            with token_file.open(encoding="utf-8") as file:
                ApiOptions.token = checked_token(file.read(MAX_TOKEN_FILE), str(token_file))
            if not ApiOptions.token:
                raise Usage(f"the token file {token_file} is empty")
        except (OSError, UnicodeDecodeError) as fault:
            # A decoder's message would show the file's content.
            why = fault.strerror if isinstance(fault, OSError) else "it is not text"
            raise Usage(f"cannot read the token file {token_file}: {why}") from None


@contextmanager
def open_client() -> Iterator[Client]:
    """A client for the api that the options, the environment or the local system name."""
    with Client(find_endpoint(ApiOptions.url, ApiOptions.token)) as client:
        yield client
