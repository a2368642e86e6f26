"""``proctor pools``: the spares of each volume type, their targets, the pool's two jobs."""

from typing import Annotated, Any

import typer

from proctor_cli.options import Output, OutputOption, open_client
from proctor_cli.render import ago, as_json, table, talk

pools_app = typer.Typer(
    help="Show the volume pool; set targets; run its jobs.",
    invoke_without_command=True,
    epilog="Example: proctor pools · proctor pools set igw 11 · proctor pools sync",
)


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.add_typer(pools_app, name="pools")


@pools_app.callback()
def list_pools(context: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """Show each type: target, idle spares, spares in creation, results of claims, and what blocks it."""
    if context.invoked_subcommand is not None:
        return
    with open_client() as client:
        found = list(client.items("/v1/pools"))
    _show(found, output)


def _show(found: list[dict[str, Any]], output: Output) -> None:
    if output is Output.JSON:
        as_json(found)
        return
    table(
        ["type", "GB", "target", "ready", "creating", "failed", "leaked", "claims", "hits", "p50", "p99", "stopped"],
        [
            [
                p["type"],
                p["size_gb"],
                p["target"],
                p["ready"],
                p["creating"],
                p["failed"],
                p["leaked"],
                p["claims"],
                "" if p["hit_rate"] is None else f"{p['hit_rate']:.0%}",
                _ms(p["claim_p50"]),
                _ms(p["claim_p99"]),
                p["stopped"],
            ]
            for p in found
        ],
    )
    for job in ("replenish", "sync") if found else ():
        run = found[0][job]
        talk(f"{job}: {ago(run['last'])}: {run['outcome'] or 'has not run'}")
        if run["skipped"]:
            talk(f"  skipped {run['skipped']}")


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:.1f} ms"


@pools_app.command("set", epilog="Example: proctor pools set igw 11")
def set_target(
    type: Annotated[str, typer.Argument(metavar="TYPE")],
    target: Annotated[int, typer.Argument(metavar="TARGET", min=0)],
    output: OutputOption = Output.TABLE,
) -> None:
    """Set how many idle spares of a type to keep; valid until the value in the settings file changes."""
    with open_client() as client:
        found = client.put(f"/v1/pools/{type}", {"target": target})
    _show([found], output)


@pools_app.command("replenish", epilog="Example: proctor pools replenish")
def replenish() -> None:
    """Fill the pools now, unless that is already running."""
    _run("replenish")


@pools_app.command("sync", epilog="Example: proctor pools sync")
def sync() -> None:
    """Compare with the backend now, unless that is already running."""
    _run("sync")


@pools_app.command("reload", epilog="Example: proctor pools reload")
def reload(output: OutputOption = Output.TABLE) -> None:
    """Read the pool's settings file again. If it has a fault, it is refused and the former settings stay."""
    with open_client() as client:
        found = client.post("/v1/pools/reload")
    _show(found["items"], output)


def _run(job: str) -> None:
    with open_client() as client:
        found = client.post(f"/v1/pools/{job}")
    talk(f"{job} {found['outcome']}" + (f": {found['reason']}" if found["reason"] else ""))
