"""``proctor case`` and ``proctor run``: send, follow, and end with the verdict as the exit code."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from proctor_cli.client import Client
from proctor_cli.faults import Refused, Stopped, Usage
from proctor_cli.following import follow_run
from proctor_cli.options import Output, OutputOption, open_client
from proctor_cli.render import as_json, talk

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
    target: Annotated[str | None, typer.Option(help="one of the agent's SSH targets")] = None,
    group: Annotated[str | None, typer.Option(help="the run's group; a token of several groups names one")] = None,
    timeout: Annotated[float | None, typer.Option(help="seconds", min=0.1)] = None,
    follow: FollowOption = True,
    output: OutputOption = Output.TABLE,
) -> None:
    """Run one test case on one host and follow it.

    NAME=VALUE takes the type that the method's schema asks for; NAME:=JSON gives any JSON value as it is.
    """
    plugin, dot, name = method.partition(".")
    if not dot or not plugin or not name:
        raise Usage(f"not PLUGIN.METHOD: {method} (`proctor agents show {host}` lists them)")
    with told_of_a_stop() as progress, open_client() as client:
        schema = _schema(client, host, plugin, name)
        body: dict[str, Any] = {
            "plugin": plugin,
            "method": name,
            "host": host,
            "parameters": dict(read_parameter(text, schema) for text in parameters or []),
        }
        if target is not None:
            body["target"] = target
        if group is not None:
            body["group"] = group
        if timeout is not None:
            body["timeout"] = timeout
        _follow(client, progress.submit(client, "/v1/testcases", body), follow, output)


def run(
    plan: Annotated[str, typer.Argument(metavar="PLAN.yaml", help="a file, - for standard input, or a stored plan")],
    parameters: Annotated[list[str] | None, typer.Option("-p", "--parameter", metavar="NAME=VALUE")] = None,
    group: Annotated[str | None, typer.Option(help="use this group's agents only")] = None,
    follow: FollowOption = True,
    output: OutputOption = Output.TABLE,
) -> None:
    """Run a test plan and follow it: a file (YAML or JSON, the legacy form too), or a stored plan.

    NAME=VALUE takes the type that the plan declares for the parameter; NAME:=JSON gives any JSON value as it is.

    Exit code: 0 passed, 1 failed or rejected, 2 usage, 3 error, 4 timed out, 130 cancelled. Ctrl-C asks to cancel;
    a second one leaves the run alone.
    """
    with told_of_a_stop() as progress:
        body: dict[str, Any] = {
            "plan": read_plan(plan),
            "parameters": dict(read_parameter(text, {}) for text in parameters or []),
        }
        if group is not None:
            body["group"] = group
        with open_client() as client:
            _follow(client, progress.submit(client, "/v1/runs", body), follow, output)


class Progress:
    """How far a submission has come, in the words for who stops it there."""

    words = "stopped before anything was started"

    def submit(self, client: Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Start the run; its view."""
        self.words = "stopped while it was being submitted: `proctor runs` shows whether it was started"
        started: dict[str, Any] = client.post(path, body, starts=True)
        self.words = f"left alone; it goes on: `proctor show {started['id']}`, `proctor logs -f {started['id']}`"
        return started


@contextmanager
def told_of_a_stop() -> Iterator[Progress]:
    """Ctrl-C is told in one line that says whether a run goes on. Raises Stopped."""
    progress = Progress()
    try:
        yield progress
    except KeyboardInterrupt:
        raise Stopped(progress.words) from None


def _follow(client: Client, started: dict[str, Any], follow: bool, output: Output) -> None:
    if follow:
        raise typer.Exit(follow_run(client, started, as_document=output is Output.JSON))
    if output is Output.JSON:
        as_json(started)
    else:
        print(started["id"])
        talk(f"started; `proctor logs -f {started['id']}` shows its log")


def read_plan(plan: str) -> str:
    """The plan's text from a file or standard input; a name that is no file stands for a stored plan.

    Raises Usage where the file cannot be read.
    """
    if plan == "-":
        return _utf8(sys.stdin.buffer.read(), "standard input")
    path = Path(plan)
    if not path.exists() and path.suffix == "" and "/" not in plan:
        return plan
    try:
        return _utf8(path.read_bytes(), plan)
    except FileNotFoundError:
        raise Usage(f"cannot read the plan: no such file: {plan}") from None
    except OSError as fault:
        raise Usage(f"cannot read the plan: {fault}") from None


def _utf8(data: bytes, where: str) -> str:
    """The text with its lines ended by a line feed, whatever the locale says of texts. Raises Usage."""
    try:
        return data.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as fault:
        raise Usage(f"cannot read the plan: {where} is not UTF-8 text (byte {fault.start + 1})") from None


def read_parameter(text: str, schema: dict[str, Any]) -> tuple[str, Any]:
    """Name and value of NAME=VALUE (typed by the schema's property) or NAME:=JSON. Raises Usage."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise Usage(f"not NAME=VALUE: {text}")
    if name.endswith(":"):
        try:
            return name[:-1], json.loads(value)
        except ValueError as fault:
            raise Usage(f"not JSON behind {name}=: {fault}") from None
    wanted = schema.get("properties", {}).get(name, {})
    if _takes_text(wanted):
        return name, value
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value  # the api says what the method wants, with the path


def _takes_text(wanted: dict[str, Any]) -> bool:
    kinds = [wanted, *wanted.get("anyOf", []), *wanted.get("oneOf", [])]
    types = {t for kind in kinds for t in _list(kind.get("type"))}
    return not types or "string" in types


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _schema(client: Client, host: str, plugin: str, method: str) -> dict[str, Any]:
    """The method's schema, to type the values by; {} where it cannot be had (the api then names the fault)."""
    try:
        agent = client.get(f"/v1/agents/{host}")
    except Refused:
        return {}
    spec = agent["plugins"].get(plugin, {}).get("methods", {}).get(method, {})
    found: dict[str, Any] = spec.get("parameters", {})
    return found
