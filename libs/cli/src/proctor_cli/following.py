"""Follow a run to its end: log on standard output, changes and verdict on standard error, its result as exit code."""

from contextlib import suppress
from enum import StrEnum
from typing import Annotated, Any

import typer

from proctor_cli.client import Client
from proctor_cli.faults import CommandFault
from proctor_cli.options import Output
from proctor_cli.render import LogPrinter, as_json, harmless, seconds_between, talk, verdict
from proctor_cli.stopping import Terminated, TimeIsUp, signals_raised, time_left
from proctor_cli.tail import follow

EXIT_CODES = {"passed": 0, "failed": 1, "rejected": 1, "error": 3, "timed_out": 4, "cancelled": 130}
APPROVAL = "the approval"
"""How the reason of a gate that waits for a person begins."""
LAST_SECONDS = 10.0
"""How long to follow a run that is being cancelled after SIGTERM or SIGHUP."""


class OnTerm(StrEnum):
    """What happens to a followed run at SIGTERM and SIGHUP."""

    CANCEL = "cancel"
    LEAVE = "leave"


OnTermOption = Annotated[OnTerm, typer.Option("--on-term", help="what SIGTERM and SIGHUP do to the run")]


def left_alone(started: dict[str, Any]) -> str:
    """The message on a run that is no longer followed."""
    return f"left alone; it goes on: `proctor show {started['number']}`, `proctor logs -f {started['number']}`"


def show_started(client: Client, started: dict[str, Any], *, follow: bool, on_term: OnTerm, output: Output) -> None:
    """Follow a run that was just started and end the command with its result, or print how to follow it."""
    try:
        if follow:
            raise typer.Exit(follow_run(client, started, as_document=output is Output.JSON, on_term=on_term))
        if output is Output.JSON:
            as_json(started)
        else:
            print(started["id"])
            talk(f"run {started['number']} is started; `proctor logs -f {started['number']}` shows its log")
    except OSError:
        # Standard output cannot be written: a full disk, a closed pipe.
        talk(left_alone(started))
        raise


def follow_run(
    client: Client, started: dict[str, Any], *, as_document: bool = False, on_term: OnTerm = OnTerm.CANCEL
) -> int:
    """Show the run's log until it ends; returns the exit code of its result.

    ``as_document``: no log, but the finished run as JSON. Ctrl-C cancels the run and follows it to its end; a second
    Ctrl-C leaves it alone and says so (130). SIGTERM and SIGHUP cancel it too, or leave it alone (``on_term``), and end
    the process (143, 129).
    """
    following = _Following(client, started, as_document)
    with signals_raised():
        try:
            return following.to_its_end()
        except Terminated as ended:
            return following.end_by_signal(ended, on_term)


class _Following:
    def __init__(self, client: Client, started: dict[str, Any], as_document: bool) -> None:
        self._client = client
        self._started = started
        self._run = started["id"]
        self._as_document = as_document
        self._printer = LogPrinter(steps=sum(started["steps"].values()) > 1)
        self._cursor: str | None = None
        self._asked = False
        self._reason = ""

    def left(self) -> str:
        number = self._started["number"]
        return (
            f"left while it is being cancelled: `proctor show {number}`" if self._asked else left_alone(self._started)
        )

    def to_its_end(self) -> int:
        if not self._as_document:
            talk(
                f"run {self._started['number']} \u00b7 {self._client.endpoint.url}/v1/runs/{self._started['number']}",
                style="dim",
            )
        while True:
            try:
                self._watch()
                break
            except KeyboardInterrupt:
                if self._asked:
                    talk(self.left())
                    return 130
                talk("cancelling (Ctrl-C again leaves the run alone)", style="yellow")
                self._ask_to_cancel()
        self._printer.flush()
        ended = self._client.get(f"/v1/runs/{self._run}")
        if self._as_document:
            as_json(ended)
        else:
            _tell_verdict(ended)
        return EXIT_CODES.get(ended["result"], 3)

    def end_by_signal(self, ended: Terminated, on_term: OnTerm) -> int:
        """Cancel the run, or leave it alone; follow it for LAST_SECONDS. A closed terminal is no fault."""
        words = self.left()
        try:
            if on_term is OnTerm.CANCEL or self._asked:
                with time_left(LAST_SECONDS):
                    if not self._asked:
                        self._ask_to_cancel()
                    with suppress(OSError):
                        talk(f"{ended}: cancelling", style="yellow")
                        self._watch()
                    words = f"it has ended: {self._wait_for_result()}"
        except (TimeIsUp, Terminated, KeyboardInterrupt):
            words = f"{self._started['number']} is still being cancelled: `proctor show {self._started['number']}`"
        except CommandFault as fault:
            words = f"{fault}; {self.left()}"
        with suppress(OSError):
            talk(f"{ended}: {words}")
        return ended.exit_code

    def _watch(self) -> None:
        for frame in follow(self._client.endpoint, self._run, after=self._cursor, tell_quiet=not self._as_document):
            self._cursor = frame.get("cursor", self._cursor)
            if frame["type"] == "quiet":
                self._tell_what_is_waited_for()
            elif not self._as_document:
                _show(self._printer, frame)
                if frame["type"] == "step" and frame.get("state") == "running" and not frame.get("host"):
                    _tell_why(self._client, self._run, frame)

    def _tell_what_is_waited_for(self) -> None:
        """Print why nothing happens, once for each reason."""
        try:
            found = self._client.get(f"/v1/runs/{self._run}")
            reason = found.get("waiting_for") or ""
            if not reason and found["state"] != "finished":
                rows = self._client.items(f"/v1/runs/{self._run}/steps", most=100)
                reason = next((f"{row['step']}: {row['waiting_for']}" for row in rows if row["waiting_for"]), "")
        except CommandFault:
            return  # only a hint
        if reason and reason != self._reason:
            self._printer.stand_back()
            talk(f"\u00b7 waiting: {reason}", style="yellow")
        self._reason = reason

    def _wait_for_result(self) -> str:
        for _ in follow(self._client.endpoint, self._run, after=self._cursor):
            pass
        return str(self._client.get(f"/v1/runs/{self._run}")["result"])

    def _ask_to_cancel(self) -> None:
        self._asked = True
        try:
            self._client.post(f"/v1/runs/{self._run}/cancel")
        except CommandFault as fault:
            talk(f"could not ask: {fault}")


def _tell_verdict(ended: dict[str, Any]) -> None:
    took = seconds_between(ended["started_at"] or ended["created_at"], ended["finished_at"])
    verdict(ended["name"], ended["result"], ended["reason"], took)


def _show(printer: LogPrinter, frame: dict[str, Any]) -> None:
    if frame["type"] == "step":
        attempt = f" (attempt {frame['attempt']})" if (frame.get("attempt") or 1) > 1 else ""
        host = f" on {frame['host']}" if frame.get("host") else ""
        how = frame.get("result") or frame.get("state") or ""
        printer.stand_back()
        talk(f"\u00b7 {frame['step']}{attempt} {how}{host}", style="dim")
    else:
        printer.show(frame)


def _tell_why(client: Client, run: str, frame: dict[str, Any]) -> None:
    """A step without a host is a gate or a nested run: print what it waits for, and how to approve a gate."""
    try:
        rows = [row for row in client.items(f"/v1/runs/{run}/steps", most=1000) if row["id"] == frame.get("step_id")]
    except CommandFault:
        return  # only a hint
    for row in rows:
        if row["waiting_for"]:
            how = f": `proctor approve {run} {row['step']}`" if row["waiting_for"].startswith(APPROVAL) else ""
            talk(f"\u00b7 {row['step']} waits for {harmless(row['waiting_for'])}{how}", style="yellow")
