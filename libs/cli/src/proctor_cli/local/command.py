"""``proctor up`` and ``proctor demo``."""

from pathlib import Path
from typing import Annotated

import typer

from proctor_cli.endpoint import default_data_dir
from proctor_cli.faults import Usage

MAX_AGENTS = 64


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command(epilog="Example: proctor up --data ./state --http 127.0.0.1:8774 --agents 2")(up)
    app.command(epilog="Example: ./justw demo")(demo)


def up(
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="where all state is kept")] = None,
    http: Annotated[str, typer.Option(metavar="ADDR:PORT", help="port 0: a free one")] = "127.0.0.1:8774",
    agents: Annotated[int, typer.Option(min=0, max=MAX_AGENTS, help="agents local-1 to local-N")] = 1,
    pool: Annotated[
        Path | None, typer.Option(metavar="FILE.ini", help="settings of the volume pool; without it DIR/pool.ini")
    ] = None,
    no_auth: Annotated[bool, typer.Option("--no-auth", help="every caller is admin; on loopback only")] = False,
) -> None:
    """Run the whole system on this machine until Ctrl-C.

    When all of it is ready, one line on standard output: ready URL token TOKEN. Needs proctor's extra `local`.
    """
    from proctor_cli.local.addresses import parse_http

    address = parse_http(http)
    if no_auth and not address.is_loopback:
        raise Usage(f"--no-auth makes every caller admin: only with a loopback address, not {address.host}")
    if pool is not None and not pool.is_file():
        raise Usage(f"--pool: no such file: {pool}")
    try:
        from proctor_cli.local.pool import check_pool
        from proctor_cli.local.system import Options
        from proctor_cli.local.up import run_up
    except ModuleNotFoundError as missing:
        raise Usage(f"proctor up needs {missing.name}: install libs/cli with its extra [local]") from None
    options = Options(
        data=data or default_data_dir(),
        http=address,
        agents=agents,
        no_auth=no_auth,
        pool=None if pool is None else check_pool(pool),
    )
    raise typer.Exit(run_up(options))


def demo() -> None:
    """Start everything in a temporary directory, run examples/smoke.yaml, show its log live, and stop everything.

    Exit code 0: the run passed.
    """
    try:
        from proctor_cli.local.demo import run_demo
    except ModuleNotFoundError as missing:
        raise Usage(f"proctor demo needs {missing.name}: install libs/cli with its extra [local]") from None
    raise typer.Exit(run_demo())
