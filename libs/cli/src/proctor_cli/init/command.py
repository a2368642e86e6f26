"""``proctor init``."""

import re
from ipaddress import ip_address
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer

from proctor_cli.faults import CommandFault, Usage

_NAME = re.compile(r"^(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_-]{1,63}){0,40}\Z")


class NotInstalled(CommandFault):
    """The extra that a local command needs is not installed."""

    exit_code = 2


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(epilog="Example: proctor init /etc/proctor --name proctor.lab.example --name 10.0.0.5")(init)


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="made private (0700) and owned by the caller")],
    name: Annotated[
        list[str] | None, typer.Option(help="a host name or address by which NATS and the api are reached")
    ] = None,
    nats_listen: Annotated[str, typer.Option(help="the address in nats-server.conf")] = "0.0.0.0:4222",
    nats_store: Annotated[str, typer.Option(help="JetStream's folder in nats-server.conf")] = "/data/jetstream",
    nats_files: Annotated[
        str | None, typer.Option(help="where nats-server finds its certificate and key, if not in DIR/tls")
    ] = None,
) -> None:
    """Make the keys, certificates, passwords and the first admin token of an installation.

    Each file is made once: a second call makes missing files and changes no other. Only nats-server.conf and roles.sql,
    which are derived from the others, are written again.
    """
    for one in name or []:
        if not is_server_name(one):
            raise Usage(f"--name: not a host name or an address: {one}")
    try:
        from proctor_cli.init.identity import make_identities
        from proctor_cli.init.install import write_derived

        identities = make_identities(folder, name or [])
    except ModuleNotFoundError as missing:
        raise NotInstalled(f"proctor init needs {missing.name}: install libs/cli with its extra [local]") from None
    certificates = PurePosixPath(nats_files) if nats_files else None
    write_derived(identities, listen=nats_listen, store=nats_store, certificates=certificates)
    print(folder)


def is_server_name(text: str) -> bool:
    """Whether a certificate can be made for it: a host name or an address."""
    try:
        ip_address(text)
    except ValueError:
        return _NAME.match(text) is not None
    return True
