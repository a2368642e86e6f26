"""Follow a run to its end: its log on standard output, its changes and its verdict on standard error, its result as
exit code.
"""

from typing import Any

from proctor_cli.client import Client
from proctor_cli.faults import CommandFault
from proctor_cli.render import LogPrinter, as_json, harmless, seconds_between, talk, verdict
from proctor_cli.tail import follow

EXIT_CODES = {"passed": 0, "failed": 1, "rejected": 1, "error": 3, "timed_out": 4, "cancelled": 130}
APPROVAL = "the approval"
"""How the reason of a gate that waits for a person begins."""


def follow_run(client: Client, started: dict[str, Any], *, as_document: bool = False) -> int:
    """Show the run's log until it ends; the exit code of its result.

    ``as_document``: no log; the finished run as JSON. Ctrl-C asks the api to cancel the run and goes on to its end;
    a second Ctrl-C leaves the run alone and says so (130).
    """
    run = started["id"]
    printer = LogPrinter(steps=sum(started["steps"].values()) > 1)
    cursor: str | None = None
    asked = False
    while True:
        try:
            for frame in follow(client.endpoint, run, after=cursor):
                cursor = frame.get("cursor", cursor)
                if not as_document:
                    _show(printer, frame)
                    if frame["type"] == "step" and frame.get("state") == "running" and not frame.get("host"):
                        _tell_why(client, run, frame)
            break
        except KeyboardInterrupt:
            if asked:
                talk(f"left alone; it goes on: `proctor show {run}`, `proctor logs -f {run}`")
                return 130
            asked = True
            talk("cancelling (Ctrl-C again leaves the run alone)", style="yellow")
            _ask_to_cancel(client, run)
    printer.flush()
    ended = client.get(f"/v1/runs/{run}")
    if as_document:
        as_json(ended)
    else:
        took = seconds_between(ended["started_at"] or ended["created_at"], ended["finished_at"])
        verdict(ended["name"], ended["result"], ended["reason"], took)
    return EXIT_CODES.get(ended["result"], 3)


def _show(printer: LogPrinter, frame: dict[str, Any]) -> None:
    if frame["type"] == "step":
        attempt = f" (attempt {frame['attempt']})" if (frame.get("attempt") or 1) > 1 else ""
        host = f" on {frame['host']}" if frame.get("host") else ""
        how = frame.get("result") or frame.get("state") or ""
        talk(f"\u00b7 {frame['step']}{attempt} {how}{host}", style="dim")
    else:
        printer.show(frame)


def _tell_why(client: Client, run: str, frame: dict[str, Any]) -> None:
    """A step that runs on no host is a gate or another run: say what it waits for, and how a gate is opened."""
    try:
        rows = [row for row in client.items(f"/v1/runs/{run}/steps", most=1000) if row["id"] == frame.get("step_id")]
    except CommandFault:
        return  # only a hint
    for row in rows:
        if row["waiting_for"]:
            how = f": `proctor approve {run} {row['step']}`" if row["waiting_for"].startswith(APPROVAL) else ""
            talk(f"\u00b7 {row['step']} waits for {harmless(row['waiting_for'])}{how}", style="yellow")


def _ask_to_cancel(client: Client, run: str) -> None:
    try:
        client.post(f"/v1/runs/{run}/cancel")
    except CommandFault as fault:
        talk(f"could not ask: {fault}")
