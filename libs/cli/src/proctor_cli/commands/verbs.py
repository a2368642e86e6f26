"""``proctor pause``, ``resume``, ``rerun`` and ``approve``: act on an existing run."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from proctor_cli.following import OnTerm, OnTermOption, show_started
from proctor_cli.options import Output, OutputOption, open_client
from proctor_cli.render import as_json, harmless, talk

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="the run's id or number")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command(epilog="Example: proctor pause 0199…")(pause)
    app.command(epilog="Example: proctor resume 0199…")(resume)
    app.command(epilog="Example: proctor rerun 0199… --failed --follow")(rerun)
    app.command(epilog="Example: proctor approve 0199… release · proctor approve 0199… release --reject")(approve)


def pause(run: RunArgument, output: OutputOption = Output.TABLE) -> None:
    """Start nothing new in a run. Running steps go on to their end, and the run keeps its hosts."""
    with open_client() as client:
        _tell(client.post(f"/v1/runs/{run}/pause"), output)


def resume(run: RunArgument, output: OutputOption = Output.TABLE) -> None:
    """Continue a paused run."""
    with open_client() as client:
        _tell(client.post(f"/v1/runs/{run}/resume"), output)


def rerun(
    run: RunArgument,
    failed: Annotated[
        bool, typer.Option("--failed", help="only what did not pass; passed steps keep their outputs")
    ] = False,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="show the log until the run ends")] = False,
    on_term: OnTermOption = OnTerm.CANCEL,
    output: OutputOption = Output.TABLE,
) -> None:
    """Run a finished run's plan again, as a new run. With --follow its result gives the exit code, as for `run`."""
    with open_client() as client:
        started = client.post(f"/v1/runs/{run}/rerun", {"failed_only": failed}, starts=True)
        show_started(client, started, follow=follow, on_term=on_term, output=output)


def approve(
    run: RunArgument,
    step: Annotated[str, typer.Argument(metavar="STEP", help="the gate's name")],
    reject: Annotated[bool, typer.Option("--reject", help="reject it: the gate fails")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Approve a gate that a run waits at, or reject it."""
    verb = "reject" if reject else "approve"
    with open_client() as client:
        found = client.post(f"/v1/runs/{run}/steps/{quote(step, safe='')}/{verb}")
    if output is Output.JSON:
        as_json(found)
    else:
        talk(f"{harmless(step)} is {'rejected' if reject else 'approved'}; the run is {found['state']}")


def _tell(found: dict[str, Any], output: Output) -> None:
    if output is Output.JSON:
        as_json(found)
        return
    why = f": {harmless(found['waiting_for'])}" if found.get("waiting_for") else ""
    talk(f"{harmless(found['name'])} is {found['state']}{why}")
