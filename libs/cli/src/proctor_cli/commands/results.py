"""``proctor results``: push, list and export results of the Test API."""

import json
import sys
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from proctor_cli.faults import Usage
from proctor_cli.options import Output, OutputOption, open_client
from proctor_cli.render import as_json, table, talk

results_app = typer.Typer(
    help="Push, list and export results of the Test API.",
    no_args_is_help=True,
    epilog="Example: proctor results list --project functest --last 5",
)
PUSH_EXAMPLES = "Examples: proctor results push result.json · proctor results export | proctor results push - --declare"
CHUNK = 256 * 1024
UNDECLARED = ("no such pod", "no such project")
"""How the reasons begin that `--declare` prevents."""
MAX_SINGLE = 16 * 1024 * 1024


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.add_typer(results_app, name="results")


ProjectOption = Annotated[str | None, typer.Option("--project", help="only of this project")]
CaseOption = Annotated[str | None, typer.Option("--case", help="only of this test case")]
PodOption = Annotated[str | None, typer.Option("--pod", help="only on this pod")]
InstallerOption = Annotated[str | None, typer.Option("--installer", help="only of this installer")]
VersionOption = Annotated[str | None, typer.Option("--version", help="only of this version")]
ScenarioOption = Annotated[str | None, typer.Option("--scenario", help="only of this scenario")]
CriteriaOption = Annotated[str | None, typer.Option("--criteria", help="only with this verdict, such as PASS")]
TagOption = Annotated[str | None, typer.Option("--build-tag", help="only of this build")]
FromOption = Annotated[str | None, typer.Option("--from", help="started at this time or later, such as 2026-01-31")]
ToOption = Annotated[str | None, typer.Option("--to", help="started before")]
PeriodOption = Annotated[int | None, typer.Option("--period", min=1, help="started in this number of days until now")]


@results_app.command("push", epilog=PUSH_EXAMPLES)
def push(
    file: Annotated[str, typer.Argument(metavar="FILE", help="a result as JSON, or many as NDJSON; - for the input")],
    declare: Annotated[bool, typer.Option("--declare", help="declare missing pods, projects and test cases")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Store results. Lines that cannot be stored are named and the others are stored; then the exit code is 1."""
    with open_client() as client:
        if file == "-":
            report = client.upload("/v1/results/import", _chunks(sys.stdin.buffer), declare=declare)
        else:
            try:
                with Path(file).open("rb") as source:
                    report = client.upload("/v1/results/import", _body(source), declare=declare)
            except OSError as fault:
                raise Usage(f"cannot read {file}: {fault.strerror or fault}") from None
    if output is Output.JSON:
        as_json(report)
    else:
        known = f", {report['known']} known already" if report["known"] else ""
        talk(f"{report['stored']} stored{known}, {report['refused']} refused")
        for line in [*refusal_lines(report, declare=declare), *dropped_lines(report)]:
            talk(line)
    if report["refused"]:
        raise typer.Exit(1)


def refusal_lines(report: dict[str, Any], *, declare: bool) -> list[str]:
    """Why lines were refused: each reason once, with the number of lines. The report names the first lines."""
    lines: dict[str, list[int]] = {}
    for refusal in report["errors"]:
        lines.setdefault(str(refusal["message"]), []).append(refusal["line"])
    shown = []
    for message, at in lines.items():
        more = f" and {len(at) - 1} more" if len(at) > 1 else ""
        shown.append(f"line {at[0]}{more}: {message}")
    if report["refused"] > len(report["errors"]):
        shown.append(f"{report['refused'] - len(report['errors'])} more were refused that are not listed")
    if not declare and any(message.startswith(UNDECLARED) for message in lines):
        shown.append("--declare declares the pods, projects and test cases that are missing")
    return shown


def dropped_lines(report: dict[str, Any]) -> list[str]:
    """What was stored without some member, or with another value in it."""
    dropped = report.get("dropped", {})
    return [f"{name} cannot be stored as it is: dropped in {count}" for name, count in dropped.items()]


@results_app.command("list", epilog="Example: proctor results list --project functest --case vPing --last 5")
def list_results(
    project: ProjectOption = None,
    case: CaseOption = None,
    pod: PodOption = None,
    installer: InstallerOption = None,
    version: VersionOption = None,
    scenario: ScenarioOption = None,
    criteria: CriteriaOption = None,
    build_tag: TagOption = None,
    since: FromOption = None,
    before: ToOption = None,
    period: PeriodOption = None,
    last: Annotated[int, typer.Option("--last", min=1, max=10_000, help="at most so many, the newest")] = 20,
    output: OutputOption = Output.TABLE,
) -> None:
    """List results, newest first."""
    filters = _filters(locals())
    with open_client() as client:
        found = client.get("/api/v1/results", last=last, **filters)["results"]
    if output is Output.JSON:
        as_json(found)
        return
    names = ("_id", "project_name", "case_name", "pod_name", "installer", "scenario", "version", "criteria")
    titles = ["id", "project", "case", "pod", "installer", "scenario", "version", "criteria", "started"]
    table(titles, [[*(row[name] for name in names), row["start_date"]] for row in found])


@results_app.command("export", epilog="Example: proctor results export --project functest --period 30 > results.ndjson")
def export(
    project: ProjectOption = None,
    case: CaseOption = None,
    pod: PodOption = None,
    installer: InstallerOption = None,
    version: VersionOption = None,
    scenario: ScenarioOption = None,
    criteria: CriteriaOption = None,
    build_tag: TagOption = None,
    since: FromOption = None,
    before: ToOption = None,
    period: PeriodOption = None,
    last: Annotated[int | None, typer.Option("--last", min=1, help="at most so many, the newest")] = None,
) -> None:
    """Write results to standard output as NDJSON; `proctor results push` reads them."""
    filters = _filters(locals())
    with open_client() as client:
        for chunk in client.stream("/v1/results/export", last=last, **filters):
            sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


def _filters(options: dict[str, Any]) -> dict[str, Any]:
    """A command's options as query parameters."""
    names = ("project", "case", "pod", "installer", "version", "scenario", "criteria", "build_tag", "period")
    given = {name: options[name] for name in names}
    return {**given, "from": _date("--from", options["since"]), "to": _date("--to", options["before"])}


def _date(option: str, text: str | None) -> str | None:
    """The date unchanged, if it is one: the Test API finds nothing for a date that it cannot read. Raises Usage."""
    if text is not None:
        try:
            datetime.fromisoformat(text.strip())
        except ValueError:
            raise Usage(f"{option}: not a date: {text!r}; write it as 2026-01-31 or 2026-01-31 14:00:00") from None
    return text


def _body(source: BinaryIO) -> Iterable[bytes]:
    """A file's content; a single result on several lines is put on one line."""
    head = source.read(MAX_SINGLE)
    try:
        single = json.loads(head)
    except ValueError:
        single = None
    if isinstance(single, dict):
        return iter([json.dumps(single).encode()])
    return _after(head, source)


def _after(head: bytes, source: BinaryIO) -> Iterator[bytes]:
    yield head
    yield from _chunks(source)


def _chunks(source: BinaryIO) -> Iterator[bytes]:
    while chunk := source.read(CHUNK):
        yield chunk
