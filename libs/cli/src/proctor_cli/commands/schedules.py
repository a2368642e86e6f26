"""``proctor schedules``: plans that start by the clock."""

from typing import Annotated, Any

import typer

from proctor_cli.inputs import ParameterFileOption, ParametersOption, read_parameters, read_plan
from proctor_cli.options import Output, OutputOption, open_client
from proctor_cli.render import ago, as_json, harmless, table, talk

schedules_app = typer.Typer(
    help="List schedules; make, show and delete them.",
    invoke_without_command=True,
    epilog='Example: proctor schedules put nightly --cron "30 2 * * mon-fri" --timezone Europe/Berlin --plan smoke',
)
NameArgument = Annotated[str, typer.Argument(metavar="NAME")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.add_typer(schedules_app, name="schedules")


@schedules_app.callback()
def list_schedules(context: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """List schedules: when they are due, and the result of the last tick."""
    if context.invoked_subcommand is None:
        _list(output)


@schedules_app.command("list", epilog="Example: proctor schedules list -o json")
def list_again(output: OutputOption = Output.TABLE) -> None:
    """List schedules: when they are due, and the result of the last tick."""
    _list(output)


def _list(output: Output) -> None:
    with open_client() as client:
        found = list(client.items("/v1/schedules"))
    if output is Output.JSON:
        as_json(found)
        return
    table(
        ["name", "cron", "timezone", "plan", "group", "next", "last", "last run"],
        [
            [s["name"], s["cron"], s["timezone"], _plan(s), s["group"], s["next_at"], _last(s), s["last_run"]]
            for s in found
        ],
    )


@schedules_app.command("show", epilog="Example: proctor schedules show nightly")
def show(name: NameArgument, output: OutputOption = Output.TABLE) -> None:
    """Show one schedule and the results of its newest ticks."""
    with open_client() as client:
        found = client.get(f"/v1/schedules/{name}")
    if output is Output.JSON:
        as_json(found)
        return
    print(harmless(f"{found['name']}  {found['cron']}  {found['timezone']}  plan {_plan(found)}"))
    print(f"next {found['next_at']}  by {harmless(found['created_by'])}\n")
    table(
        ["tick", "outcome", "run", "reason"], [[t["at"], t["outcome"], t["run"], t["reason"]] for t in found["ticks"]]
    )


@schedules_app.command(
    "put", epilog='Example: proctor schedules put nightly --cron "30 2 * * mon-fri" --plan smoke -p image=vnf-1.4'
)
def put(
    name: NameArgument,
    cron: Annotated[str, typer.Option(help="five fields as of crontab, or @daily, @hourly …")],
    plan: Annotated[str, typer.Option(metavar="PLAN", help="a stored plan (NAME or NAME@VERSION), or a file")],
    timezone: Annotated[str, typer.Option(help="an IANA name")] = "UTC",
    parameters: ParametersOption = None,
    parameter_file: ParameterFileOption = None,
    group: Annotated[str | None, typer.Option(help="use this group's agents only")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Create a schedule, or change the one of this name. A tick is skipped while the run of the former one goes on."""
    body: dict[str, Any] = {
        "cron": cron,
        "timezone": timezone,
        "plan": read_plan(plan),
        "parameters": read_parameters(parameters, parameter_file),
    }
    if group is not None:
        body["group"] = group
    with open_client() as client:
        found = client.put(f"/v1/schedules/{name}", body)
    if output is Output.JSON:
        as_json(found)
    else:
        talk(f"schedule {name} is due next at {found['next_at']}")


@schedules_app.command("delete", epilog="Example: proctor schedules delete nightly")
def delete(name: NameArgument) -> None:
    """Delete a schedule; the runs that it has started go on."""
    with open_client() as client:
        client.delete(f"/v1/schedules/{name}")
    talk(f"schedule {name} is deleted")


def _plan(schedule: dict[str, Any]) -> str:
    """The plan's name: a stored one's, or in brackets that of its own document."""
    plan = schedule["plan"]
    if isinstance(plan, dict):
        return f"({plan.get('name', 'own')})"
    return plan if len(plan) <= 80 and "\n" not in plan else "(own)"


def _last(schedule: dict[str, Any]) -> str:
    ticks = schedule["ticks"]
    return f"{ticks[0]['outcome']} {ago(ticks[0]['at'])}" if ticks else ""
