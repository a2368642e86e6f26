"""``proctor runs``, ``show``, ``cancel`` and ``logs``: look at runs."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from proctor_cli.client import Client
from proctor_cli.faults import Refused, Usage
from proctor_cli.gantt import draw
from proctor_cli.inputs import read_moment
from proctor_cli.options import LimitOption, Output, OutputOption, open_client
from proctor_cli.render import LogPrinter, ago, as_json, duration, harmless, seconds_between, shortened, table, talk
from proctor_cli.tail import EVENTS, follow, stored_frames

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="the run's id or number")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command(epilog="Example: proctor runs --result failed --limit 20")(runs)
    app.command(epilog="Example: proctor show 12 --events -f · proctor show 0199… --gantt · proctor show 12 -o json")(
        show
    )
    app.command(epilog="Example: proctor cancel 0199…")(cancel)
    app.command(epilog="Example: proctor logs -f 0199… --timestamps")(logs)


def runs(
    state: Annotated[str | None, typer.Option(help="queued, running, finished, …")] = None,
    result: Annotated[str | None, typer.Option(help="passed, failed, error, timed_out, cancelled, rejected")] = None,
    plan: Annotated[str | None, typer.Option(help="runs of the plan of this name")] = None,
    host: Annotated[str | None, typer.Option(help="runs that used this host")] = None,
    group: Annotated[str | None, typer.Option()] = None,
    since: Annotated[
        str | None, typer.Option(help="created since then: 1h, 7d, or a time as 2026-12-01T08:00:00Z")
    ] = None,
    limit: LimitOption = 20,
    output: OutputOption = Output.TABLE,
) -> None:
    """List runs, newest first. Every command takes a run's number or its id."""
    since = read_moment(since, "--since") if since is not None else None
    with open_client() as client:
        found = list(
            client.items(
                "/v1/runs", most=limit, state=state, result=result, plan=plan, host=host, group=group, since=since
            )
        )
    if output is Output.JSON:
        as_json(found)
        return
    table(
        ["run", "name", "state", "created", "took", "by"],
        [
            [
                r["number"],
                shortened(r["name"], 32),
                r["result"] or r["state"],
                ago(r["created_at"]),
                _took(r),
                r["created_by"],
            ]
            for r in found
        ],
    )


def show(
    run: RunArgument,
    events: Annotated[bool, typer.Option("--events", help="every change of state, oldest first")] = False,
    gantt: Annotated[bool, typer.Option("--gantt", help="the steps over time")] = False,
    following: Annotated[bool, typer.Option("-f", "--follow", help="with --events: go on until the run ends")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show one run and its steps: results, outputs, what they wait for.

    With --events -f only its changes of state, one line each as they happen, until it ends; with -o json one document
    each line.
    """
    if following and (gantt or not events):
        raise Usage("--follow goes with --events alone; `proctor logs -f RUN` follows the log")
    with open_client() as client:
        if following:
            _follow_events(client, run, output)
            return
        found = client.get(f"/v1/runs/{run}")
        steps = list(client.items(f"/v1/runs/{run}/steps"))
        story = list(client.items(f"/v1/runs/{run}/events")) if events else []
        attempts = list(client.items(f"/v1/runs/{run}/steps", attempts="all")) if gantt else []
    if output is Output.JSON:
        more = {**({"events": story} if events else {}), **({"attempt_list": attempts} if gantt else {})}
        as_json({**found, "step_list": steps, **more})
        return
    _show_run(found)
    if gantt:
        draw(found, attempts)
    else:
        _show_steps(steps)
    if events:
        print()
        table(
            ["seq", "at", "what", "from", "to", "result", "reason"],
            [[e["seq"], e["at"], e["step"] or "run", e["from"], e["to"], e["result"], e["reason"]] for e in story],
        )


def _follow_events(client: Client, run: str, output: Output) -> None:
    for frame in follow(client.endpoint, run, feed=EVENTS):
        if output is Output.JSON:
            print(json.dumps(frame, ensure_ascii=False), flush=True)
        elif frame["type"] != "end":
            change = " ".join(part for part in (frame["from"], "->", frame["to"]) if part)
            line = f"{frame['seq']:>5}  {frame['at']}  {frame['step'] or 'run'}  {change}"
            rest = (frame["result"], frame["reason"])
            print(harmless("  ".join(part for part in (line, *rest) if part)).replace("\n", " "), flush=True)


def _show_run(found: dict[str, Any]) -> None:
    print(harmless(f"{found['name']}  {found['state']}  {found['result'] or ''}  {found['reason']}").rstrip())
    print(f"id {found['id']}  number {found['number']}  created {found['created_at']}  took {_took(found)}")
    about = {
        "plan": found["plan"] if found["plan"] != found["name"] else None,
        "group": found["group"],
        "rerun of": found["rerun_of"],
        "part of": found["parent"],
        "waits for": found.get("waiting_for"),
        "keeps its hosts until": found.get("hold_until"),
    }
    line = "  ".join(f"{name} {value}" for name, value in about.items() if value)
    if line:
        print(harmless(line))
    if found.get("webhook"):
        print(harmless(f"webhook {called_line(found['webhook'])}"))
    if found["outputs"]:
        print(harmless(f"outputs {values_line(found['outputs'], 1000)}"))
    print()


def called_line(webhook: dict[str, Any]) -> str:
    """What became of a run's webhook, in one line."""
    state = {"given_up": "given up", "waiting": "not taken yet"}.get(webhook["state"], webhook["state"])
    tries = f" after {webhook['tries']} {'try' if webhook['tries'] == 1 else 'tries'}" if webhook["tries"] else ""
    why = f": {webhook['reason']}" if webhook["reason"] else ""
    following = f" (again at {webhook['next_at']})" if webhook["next_at"] and webhook["tries"] else ""
    return f"{state}{tries}{why}{following}"


def _show_steps(steps: list[dict[str, Any]]) -> None:
    columns = ["step", "host", "state", "result", "attempt", "exit", "took"]
    rows = [[_name(s), s["host"], s["state"], s["result"], s["attempt"], s["exit_code"], _took(s)] for s in steps]
    if any(s["child"] for s in steps):
        columns.append("nested run")
        rows = [[*row, s["child"]] for row, s in zip(rows, steps, strict=True)]
    if any(s["outputs"] for s in steps):
        columns.append("outputs")
        rows = [[*row, values_line(s["outputs"])] for row, s in zip(rows, steps, strict=True)]
    if any(s["waiting_for"] for s in steps):
        columns.append("waits for")
        rows = [[*row, s["waiting_for"]] for row, s in zip(rows, steps, strict=True)]
    table([*columns, "reason"], [[*row, s["reason"]] for row, s in zip(rows, steps, strict=True)])


def _name(step: dict[str, Any]) -> str:
    return f"{step['step']}[{step['instance']}]" if step["instance"] else str(step["step"])


def values_line(values: dict[str, Any], most: int = 80) -> str:
    """Outputs in one line: texts unchanged, all else as JSON; cut to ``most`` characters."""
    parts = [
        f"{name}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in values.items()
    ]
    line = "  ".join(parts)
    return shortened(line, most)


def cancel(run: RunArgument, output: OutputOption = Output.TABLE) -> None:
    """Cancel a run. Its steps' processes are ended. Processes that could not be ended, or may still be there, are named
    in the steps' reasons (proctor show RUN) and with their hosts (proctor agents).
    """
    with open_client() as client:
        found = client.post(f"/v1/runs/{run}/cancel")
    if output is Output.JSON:
        as_json(found)
    else:
        talk(f"{found['name']} is {found['result'] or found['state']}")


def logs(
    run: RunArgument,
    step: Annotated[str | None, typer.Option(help="this step only")] = None,
    following: Annotated[bool, typer.Option("-f", "--follow", help="go on until the run ends")] = False,
    tail: Annotated[int | None, typer.Option(min=1, help="the last so many lines")] = None,
    since: Annotated[str | None, typer.Option(metavar="CURSOR", help="go on behind this cursor")] = None,
    timestamps: Annotated[
        bool, typer.Option("--timestamps", help="the time the agent read it before each line")
    ] = False,
    raw: Annotated[bool, typer.Option("--raw", help="bytes as they came, control characters included")] = False,
) -> None:
    """Read or follow a run's log."""
    if tail is not None and since is not None:
        raise Usage("--tail and --since exclude each other")
    with _since_named(), open_client() as client:
        if raw and not following and not timestamps:
            for piece in client.stream(f"/v1/runs/{run}/logs", step=step, tail=tail, after=since, format="raw"):
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            return
        found = client.get(f"/v1/runs/{run}")
        several = step is None and sum(found["steps"].values()) > 1
        printer = LogPrinter(timestamps=timestamps, raw=raw, steps=several)
        if following:
            cursor = _read(client, run, printer, step=step, tail=tail) if tail else since
            for frame in follow(client.endpoint, run, step=step, after=cursor):
                printer.show(frame)
        else:
            _read(client, run, printer, step=step, tail=tail, after=since)
        printer.flush()


@contextmanager
def _since_named() -> Iterator[None]:
    """Name the command's option in a fault for which the api names its own parameter. Raises Usage."""
    try:
        yield
    except Refused as fault:
        if not str(fault).startswith("after: "):
            raise
        raise Usage(f"--since: {str(fault).removeprefix('after: ')}") from None


def _read(client: Client, run: str, printer: LogPrinter, **which: Any) -> str | None:
    """Print what is stored; returns the cursor after it."""
    cursor: str | None = None
    for frame in stored_frames(client, run, **which):
        cursor = frame.get("cursor", cursor)
        printer.show(frame)
    return cursor


def _took(row: dict[str, Any]) -> str:
    seconds = seconds_between(row["started_at"], row["finished_at"])
    return "" if seconds is None else duration(seconds)
