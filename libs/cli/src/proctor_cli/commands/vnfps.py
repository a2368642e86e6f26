"""``proctor vnfps``: VNFs, each with one volume."""

from typing import Annotated, Any

import typer

from proctor_cli.client import Client
from proctor_cli.naming import find_named, short_id
from proctor_cli.options import LimitOption, Output, OutputOption, open_client
from proctor_cli.render import ago, as_json, table, talk
from proctor_common.ids import is_id

vnfps_app = typer.Typer(
    help="Create, list and delete VNFs.",
    invoke_without_command=True,
    epilog="Example: proctor vnfps create vnf-1 igw · proctor vnfps list · proctor vnfps delete vnf-1",
)
VnfpArgument = Annotated[str, typer.Argument(metavar="VNF", help="its name or id")]
StateOption = Annotated[str | None, typer.Option(help="only these; deleted ones are shown with `deleted`")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.add_typer(vnfps_app, name="vnfps")


@vnfps_app.callback()
def vnfps(context: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """List VNFs, newest first."""
    if context.invoked_subcommand is None:
        _list(None, 1000, output)


@vnfps_app.command("list", epilog="Example: proctor vnfps list --state creating -o json")
def list_vnfps(state: StateOption = None, limit: LimitOption = 1000, output: OutputOption = Output.TABLE) -> None:
    """List VNFs, newest first."""
    _list(state, limit, output)


def _list(state: str | None, limit: int, output: Output) -> None:
    with open_client() as client:
        found = list(client.items("/v1/vnfps", most=limit, state=state))
    _show(found, output)


def _show(found: list[dict[str, Any]], output: Output) -> None:
    if output is Output.JSON:
        as_json(found)
        return
    table(
        ["name", "type", "state", "volume", "pool", "made", "reason", "id"],
        [
            [
                n["name"],
                n["type"],
                n["state"],
                n["volume"]["state"],
                "yes" if n["volume"]["from_pool"] else "no",
                ago(n["created_at"]),
                n["reason"],
                short_id(n["id"]),
            ]
            for n in found
        ],
    )


@vnfps_app.command("create", epilog="Example: proctor vnfps create vnf-1 igw --size-gb 20")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    type: Annotated[str, typer.Argument(metavar="TYPE", help="a type of volume, as `proctor pools` lists them")],
    size_gb: Annotated[int | None, typer.Option(min=1, help="at least so large; else as the pool's are")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Create a VNF: active at once if a spare is idle, else when a volume was made for it."""
    body = {"name": name, "type": type} | ({} if size_gb is None else {"size_gb": size_gb})
    with open_client() as client:
        found = client.post("/v1/vnfps", body, starts=True)
    if output is Output.JSON:
        as_json(found)
    else:
        _show([found], output)


@vnfps_app.command("show", epilog="Example: proctor vnfps show vnf-1 -o json")
def show(vnfp: VnfpArgument, output: OutputOption = Output.TABLE) -> None:
    """Show one VNF with its volume."""
    with open_client() as client:
        found = client.get(f"/v1/vnfps/{_id_of(client, vnfp)}")
    if output is Output.JSON:
        as_json(found)
    else:
        _show([found], output)


@vnfps_app.command("delete", epilog="Example: proctor vnfps delete vnf-1")
def delete(vnfp: VnfpArgument) -> None:
    """Delete a VNF and its volume."""
    with open_client() as client:
        found = client.delete(f"/v1/vnfps/{_id_of(client, vnfp)}")
    talk(f"VNF {found['name']} is {found['state']}")


def _id_of(client: Client, vnfp: str) -> str:
    """The id for a name or an end of an id; a whole id is returned without a look-up. Raises Usage."""
    return vnfp if is_id(vnfp) else str(find_named(client.items("/v1/vnfps"), vnfp, "VNF")["id"])
