"""``proctor plans``: check, store and show test plans."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from proctor_cli.faults import CommandFault, Refused, Usage
from proctor_cli.inputs import ParameterFileOption, ParametersOption, name_in, read_parameters, read_plan
from proctor_cli.options import Output, OutputOption, open_client
from proctor_cli.render import ago, as_json, harmless, table, talk

plans_app = typer.Typer(
    help="List stored test plans; check, store, show and delete them.",
    invoke_without_command=True,
    epilog="Example: proctor plans validate examples/smoke.yaml · proctor plans push examples/smoke.yaml · "
    "proctor run smoke · proctor plans schema > testplan.schema.json (what editors complete plans by)",
)
SCHEMA = "/docs/testplan.schema.json"
FileArgument = Annotated[str, typer.Argument(metavar="FILE", help="YAML or JSON; - for standard input")]
NameArgument = Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="a stored plan")]
GroupOption = Annotated[str | None, typer.Option(help="check as for a run of this group")]


class Faulty(CommandFault):
    """The plan has faults; they have been printed."""

    exit_code = 1


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.add_typer(plans_app, name="plans")


@plans_app.callback()
def list_plans(context: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """List stored plans, the newest version of each."""
    if context.invoked_subcommand is None:
        _list(output)


@plans_app.command("list", epilog="Example: proctor plans list -o json")
def list_again(output: OutputOption = Output.TABLE) -> None:
    """List stored plans, the newest version of each."""
    _list(output)


def _list(output: Output) -> None:
    with open_client() as client:
        found = list(client.items("/v1/testplans"))
    if output is Output.JSON:
        as_json(found)
        return
    table(
        ["name", "version", "group", "changed", "by"],
        [[p["name"], p["version"], p["group"], ago(p["created_at"]), p["created_by"]] for p in found],
    )


@plans_app.command("validate", epilog="Example: proctor plans validate examples/smoke.yaml -p image=vnf-1.4")
def validate(
    file: FileArgument,
    parameters: ParametersOption = None,
    parameter_file: ParameterFileOption = None,
    group: GroupOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Check a plan and show all faults at once, each with its location. Nothing is started.

    Exit code: 0 no fault, 1 faults. Parameters are checked if some are given.
    """
    body: dict[str, Any] = {"plan": read_plan(file)}
    if parameters or parameter_file:
        body["parameters"] = read_parameters(parameters, parameter_file)
    if group is not None:
        body["group"] = group
    with open_client() as client:
        found = client.post("/v1/testplans/validate", body)
    errors = found["errors"]
    if output is Output.JSON:
        as_json(found)
        if errors:
            raise typer.Exit(1)
        return
    if errors:
        raise _report(file, errors)
    talk(f"{file}: no fault")


def _report(file: str, errors: list[dict[str, Any]]) -> Faulty:
    """Print the faults; returns what ends the command."""
    for error in errors:
        print(harmless(fault_line(file, error)))
    return Faulty(f"{file}: {len(errors)} fault{'s' if len(errors) > 1 else ''}")


def fault_line(file: str, error: dict[str, Any]) -> str:
    """``file:line:column: path: message``, as editors and CI servers read it."""
    place = f":{error['line']}:{error['column'] or 1}" if error.get("line") else ""
    path, message = str(error.get("path") or ""), str(error.get("message", ""))
    return f"{file}{place}: {message if not path or message.startswith(path) else f'{path}: {message}'}"


@plans_app.command("schema", epilog="Example: proctor plans schema > testplan.schema.json")
def schema() -> None:
    """Print the JSON Schema of test plans, for completion and help in editors.

    The line that makes an editor use it, the first one of a plan, is printed on standard error.
    """
    with open_client() as client:
        found = client.get(SCHEMA)
        address = client.endpoint.url.rstrip("/") + SCHEMA
    print(json.dumps(found, indent=2, ensure_ascii=False))
    talk(f"as the first line of a plan: # yaml-language-server: $schema={address} (or the file's path)")


@plans_app.command("push", epilog="Example: proctor plans push examples/smoke.yaml --name nightly-smoke")
def push(
    file: FileArgument,
    name: Annotated[str | None, typer.Option(help="the name to store it under; default: the plan's own")] = None,
    group: Annotated[str | None, typer.Option(help="the group it belongs to")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Store a plan: a new version, unless nothing has changed.

    Exit code: 0 stored, 1 faults.
    """
    if file != "-" and not Path(file).exists():
        raise Usage(f"cannot read the plan: no such file: {file}")
    text = read_plan(file)
    name = name or name_in(text)
    if name is None:
        raise Usage("the plan has no name to store it under: give one with --name")
    body: dict[str, Any] = {"plan": text}
    if group is not None:
        body["group"] = group
    with open_client() as client:
        try:
            found = client.put(f"/v1/testplans/{name}", body)
        except Refused as refused:
            if refused.status != 422 or not any(error.get("line") for error in refused.errors):
                raise
            raise _report(file, refused.errors) from None
    if output is Output.JSON:
        as_json(found)
    else:
        print(f"{found['name']}@{found['version']}")


@plans_app.command("show", epilog="Example: proctor plans show smoke@2")
def show(plan: NameArgument, output: OutputOption = Output.TABLE) -> None:
    """Show the exact text of a stored plan."""
    name, at, version = plan.partition("@")
    if at and not version.isdecimal():
        raise Usage(f"not NAME or NAME@VERSION: {plan}")
    with open_client() as client:
        found = client.get(f"/v1/testplans/{name}", version=version or None)
    if output is Output.JSON:
        as_json(found)
        return
    versions = ", ".join(str(each) for each in found["versions"])
    talk(
        f"{found['name']}@{found['version']} by {found['created_by']}, {ago(found['created_at'])} (versions {versions})"
    )
    sys.stdout.write(harmless(found["plan"]).rstrip("\n") + "\n")


@plans_app.command("delete", epilog="Example: proctor plans delete smoke")
def delete(name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Delete a stored plan with all its versions; its runs are kept."""
    with open_client() as client:
        client.delete(f"/v1/testplans/{name}")
    talk(f"plan {name} is deleted")
