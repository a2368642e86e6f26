"""``proctor token``: tokens for the api."""

from typing import Annotated

import typer

from proctor_cli.inputs import read_moment
from proctor_cli.naming import find_named, short_id
from proctor_cli.options import Output, OutputOption, open_client
from proctor_cli.render import ago, as_json, table, talk

token_app = typer.Typer(
    help="Create, list and revoke tokens.",
    no_args_is_help=True,
    epilog="Example: proctor token create ci --role runner --group lab-a",
)


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.add_typer(token_app, name="token")


@token_app.command("create", epilog="Example: proctor token create ci --role runner --group lab-a")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="whose token it is")],
    role: Annotated[str, typer.Option(help="viewer, runner or admin")] = "viewer",
    group: Annotated[list[str] | None, typer.Option(help="bind it to this group (may be repeated)")] = None,
    expires: Annotated[
        str | None, typer.Option(help="how long it is good: 30d, or until a time as 2027-01-01T00:00:00Z")
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Create a token. It is shown only now."""
    body = {"name": name, "role": role}
    until = read_moment(expires, "--expires", ahead=True) if expires is not None else None
    more = {"groups": group, "expires": until}
    with open_client() as client:
        found = client.post("/v1/tokens", {**body, **{k: v for k, v in more.items() if v}})
    if output is Output.JSON:
        as_json(found)
        return
    talk(f"token {found['id']} for {name} ({role}); it is not shown again:")
    print(found["token"])


@token_app.command("list", epilog="Example: proctor token list -o json")
def list_tokens(output: OutputOption = Output.TABLE) -> None:
    """List tokens (without their secrets)."""
    with open_client() as client:
        found = list(client.items("/v1/tokens"))
    if output is Output.JSON:
        as_json(found)
        return
    table(
        ["name", "role", "groups", "expires", "last used", "id"],
        [
            [
                t["name"],
                t["role"],
                ",".join(t.get("groups") or []),
                t["expires_at"],
                ago(t["last_use"]),
                short_id(t["id"]),
            ]
            for t in found
        ],
    )


@token_app.command("revoke", epilog="Example: proctor token revoke ci")
def revoke(token: Annotated[str, typer.Argument(metavar="TOKEN", help="its name or id")]) -> None:
    """Revoke a token: it is refused from now on, also on open websockets."""
    with open_client() as client:
        found = find_named(client.items("/v1/tokens"), token, "token")
        client.delete(f"/v1/tokens/{found['id']}")
    talk(f"token {found['name']} is revoked")
