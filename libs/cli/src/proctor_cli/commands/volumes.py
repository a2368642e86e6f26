"""``proctor volumes``: spares, and volumes of VNFs and runs."""

from typing import Annotated

import typer

from proctor_cli.naming import find_named, short_id
from proctor_cli.options import LimitOption, Output, OutputOption, open_client
from proctor_cli.render import ago, as_json, table, talk
from proctor_common.ids import is_id

volumes_app = typer.Typer(
    help="List volumes; delete retained ones.",
    invoke_without_command=True,
    epilog="Example: proctor volumes --type igw · proctor volumes --state deleted -o json",
)


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.add_typer(volumes_app, name="volumes")


@volumes_app.callback()
def list_volumes(
    context: typer.Context,
    state: Annotated[str | None, typer.Option(help="only these; deleted ones are shown with `deleted`")] = None,
    type: Annotated[str | None, typer.Option(help="only volumes of this type")] = None,
    limit: LimitOption = 1000,
    output: OutputOption = Output.TABLE,
) -> None:
    """List volumes, newest first."""
    if context.invoked_subcommand is not None:
        return
    with open_client() as client:
        found = list(client.items("/v1/volumes", most=limit, state=state, type=type))
    if output is Output.JSON:
        as_json(found)
        return
    table(
        ["name", "type", "GB", "state", "pool", "of", "made", "reason", "id"],
        [
            [
                v["name"],
                v["type"],
                v["size_gb"],
                v["state"],
                "yes" if v["from_pool"] else "no",
                f"VNF {short_id(v['vnfp'])}" if v["vnfp"] else f"run {short_id(v['run'])}" if v["run"] else "",
                ago(v["created_at"]),
                v["reason"],
                short_id(v["id"]),
            ]
            for v in found
        ],
    )


@volumes_app.command("delete", epilog="Example: proctor volumes delete b8be3503c408")
def delete_volume(
    volume: Annotated[str, typer.Argument(metavar="VOLUME", help="its name, or its id as the list shows it")],
) -> None:
    """Delete a volume that its run has retained."""
    with open_client() as client:
        name = volume if is_id(volume) else find_named(client.items("/v1/volumes"), volume, "volume")["id"]
        found = client.delete(f"/v1/volumes/{name}")
    talk(f"volume {found['name']} is {found['state']}")
