"""``proctor case`` and ``proctor run``: submit, follow, and exit with the result's code."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from proctor_cli.client import Client
from proctor_cli.faults import Refused, Stopped, Usage
from proctor_cli.following import OnTerm, OnTermOption, left_alone, show_started
from proctor_cli.inputs import ParameterFileOption, ParametersOption, read_parameters, read_plan
from proctor_cli.options import Output, OutputOption, open_client
from proctor_cli.stopping import Terminated, signals_raised

FollowOption = Annotated[bool, typer.Option("--follow/--no-follow", help="show the log until the run ends")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command(epilog="Example: proctor case local-1 linux_system.run_shell command=ls args=-alt")(case)
    app.command(
        epilog="Example: proctor run examples/smoke.yaml -p image=vnf-1.4 · proctor run smoke@2 · "
        "proctor run - < plan.json"
    )(run)


def case(
    host: Annotated[str, typer.Argument(help="the host whose agent runs it")],
    method: Annotated[str, typer.Argument(metavar="PLUGIN.METHOD")],
    parameters: Annotated[list[str] | None, typer.Argument(metavar="[NAME=VALUE]…")] = None,
    parameter_file: ParameterFileOption = None,
    target: Annotated[str | None, typer.Option(help="one of the agent's SSH targets")] = None,
    group: Annotated[str | None, typer.Option(help="the run's group; a token of several groups names one")] = None,
    timeout: Annotated[float | None, typer.Option(help="seconds", min=0.1)] = None,
    follow: FollowOption = True,
    on_term: OnTermOption = OnTerm.CANCEL,
    output: OutputOption = Output.TABLE,
) -> None:
    """Run one test case on one host and follow it.

    NAME=VALUE takes the type of the method's schema; NAME:=JSON gives any JSON value; NAME=@FILE a file's text (@-
    standard input's). Use files for secrets: `ps` and the shell's history show command lines.
    """
    plugin, dot, name = method.partition(".")
    if not dot or not plugin or not name:
        raise Usage(f"not PLUGIN.METHOD: {method} (`proctor agents show {host}` lists them)")
    with stops_reported() as progress, open_client() as client:
        schema = _schema(client, host, plugin, name)
        body: dict[str, Any] = {
            "plugin": plugin,
            "method": name,
            "host": host,
            "parameters": read_parameters(parameters, parameter_file, schema),
        }
        if target is not None:
            body["target"] = target
        if group is not None:
            body["group"] = group
        if timeout is not None:
            body["timeout"] = timeout
        started = progress.submit(client, "/v1/testcases", body)
        show_started(client, started, follow=follow, on_term=on_term, output=output)


def run(
    plan: Annotated[str, typer.Argument(metavar="PLAN.yaml", help="a file, - for standard input, or a stored plan")],
    parameters: ParametersOption = None,
    parameter_file: ParameterFileOption = None,
    group: Annotated[str | None, typer.Option(help="use this group's agents only")] = None,
    follow: FollowOption = True,
    on_term: OnTermOption = OnTerm.CANCEL,
    output: OutputOption = Output.TABLE,
) -> None:
    """Run a test plan and follow it: a file (YAML or JSON, legacy plans too), or a stored plan.

    NAME=VALUE takes the type that the plan declares for the parameter; NAME:=JSON gives any JSON value; NAME=@FILE a
    file's text (@- standard input's). Use files for secrets: `ps` and the shell's history show command lines.

    Exit code: 0 passed, 1 failed, 2 usage or refused, 3 error, 4 timed out, 130 cancelled. Ctrl-C cancels the run; a
    second one leaves it alone. SIGTERM and SIGHUP cancel it too and wait at most 10 s (143, 129).
    """
    with stops_reported() as progress:
        body: dict[str, Any] = {
            "plan": read_plan(plan),
            "parameters": read_parameters(parameters, parameter_file),
        }
        if group is not None:
            body["group"] = group
        with open_client() as client:
            started = progress.submit(client, "/v1/runs", body)
            show_started(client, started, follow=follow, on_term=on_term, output=output)


class Progress:
    """How far a submission has come, as the message for the user who stops it."""

    words = "stopped before anything was started"

    def submit(self, client: Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Start the run; returns its view."""
        self.words = "stopped while it was being submitted: `proctor runs` shows whether it was started"
        started: dict[str, Any] = client.post(path, body, starts=True)
        self.words = left_alone(started)
        return started


@contextmanager
def stops_reported() -> Iterator[Progress]:
    """Report a signal in one line that says whether a run goes on. Raises Stopped."""
    progress = Progress()
    try:
        with signals_raised():
            yield progress
    except KeyboardInterrupt:
        raise Stopped(progress.words) from None
    except Terminated as ended:
        raise Stopped(progress.words, ended.exit_code) from None


def _schema(client: Client, host: str, plugin: str, method: str) -> dict[str, Any]:
    """The method's schema, for the types of values; {} if it is not available (then the api names the fault)."""
    try:
        agent = client.get(f"/v1/agents/{host}")
    except Refused:
        return {}
    spec = agent["plugins"].get(plugin, {}).get("methods", {}).get(method, {})
    found: dict[str, Any] = spec.get("parameters", {})
    return found
