"""A plan's text and parameters from the command line, from files, or from standard input."""

import codecs
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from proctor_cli.faults import Usage
from proctor_common.durations import read_duration
from proctor_common.ids import PLAN_NAME

MAX_INPUT = 16 * 1024 * 1024
"""At most so many bytes of a file are read; the api's limit for a plan is lower."""
BOMS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
ParametersOption = Annotated[
    list[str] | None,
    typer.Option("-p", "--parameter", metavar="NAME=VALUE", help="NAME=@FILE takes a file's text, NAME=@- the input's"),
]
ParameterFileOption = Annotated[
    str | None, typer.Option("--parameters", metavar="FILE.json", help="many as a JSON object; - for standard input")
]


def read_plan(plan: str) -> str:
    """The plan's text from a file or standard input (``-``); if there is no such file, ``plan`` itself, as a stored
    plan's name.

    Raises Usage if the file cannot be read.
    """
    path = Path(plan)
    if plan != "-" and not path.exists() and path.suffix == "" and "/" not in plan:
        return plan
    return read_text(plan, "the plan")


def name_in(plan: str) -> str | None:
    """The name in a plan's text; None if it has none that a stored plan may have, or is not YAML (the api says why)."""
    try:
        found = yaml.load(plan, Loader=yaml.BaseLoader)  # noqa: S506 - this loader makes only texts, lists and maps
    except (yaml.YAMLError, RecursionError):
        return None
    name = found.get("name") if isinstance(found, dict) else None
    return name if isinstance(name, str) and PLAN_NAME.match(name) else None


def read_parameters(
    words: Sequence[str] | None, file: str | None = None, schema: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The parameters of ``file`` (a JSON object), overridden by those of ``words``. Raises Usage."""
    given: dict[str, Any] = {}
    if file is not None:
        try:
            given = json.loads(read_text(file, "the parameters"))
        except (ValueError, RecursionError) as fault:
            raise Usage(f"--parameters: {_named(file)} is not JSON: {fault}") from None
        if not isinstance(given, dict):
            raise Usage(f'--parameters: {_named(file)} holds no JSON object, as {{"image": "vnf-1.4"}}')
    return given | dict(read_parameter(text, schema or {}) for text in words or [])


def read_parameter(text: str, schema: dict[str, Any]) -> tuple[str, Any]:
    """Name and value of NAME=VALUE (typed by the schema's property) or NAME:=JSON. A value that begins with ``@`` is a
    file's text without its last line end; ``@@`` stands for one ``@``. Raises Usage, which never shows a value.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.rstrip(":"):
        raise Usage(f"not NAME=VALUE: {name or text[:1]}")
    is_json = name.endswith(":")
    name = name.removesuffix(":")
    if value.startswith("@@"):
        value = value[1:]
    elif value.startswith("@"):
        value = read_text(value[1:], f"the parameter {name}").removesuffix("\n")
        if not is_json:
            return name, value
    if is_json:
        try:
            return name, json.loads(value)
        except (ValueError, RecursionError) as fault:
            raise Usage(f"not JSON behind {name}:=: {fault}") from None
    if _takes_text(schema.get("properties", {}).get(name, {})):
        return name, value
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value  # the api says what the method wants, with the path


def read_moment(text: str, option: str, *, ahead: bool = False) -> str:
    """A time in the api's format, from a time (2026-12-01T08:00:00Z, 2026-12-01) or a duration (``1h``, ``30d``) back
    from now, or on from now with ``ahead``. A time without a zone is UTC. Raises Usage.
    """
    seconds = None if text.isdecimal() else read_duration(text)
    try:
        if seconds is not None:
            moment = datetime.now(UTC) + timedelta(seconds=seconds if ahead else -seconds)
        else:
            moment = datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError):
        raise Usage(f"{option}: neither a time nor a duration: {text!r}; write 2026-12-01T08:00:00Z, or 90m") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()


def read_text(file: str, what: str) -> str:
    """The text of a file or of standard input (``-``) as UTF-8 with line feeds, whatever the locale is. ``what`` it is
    goes into the fault. Raises Usage.
    """
    try:
        if file == "-":
            data = sys.stdin.buffer.read(MAX_INPUT + 1)
        else:
            with Path(file).open("rb") as source:
                data = source.read(MAX_INPUT + 1)
    except FileNotFoundError:
        raise Usage(f"cannot read {what}: no such file: {file}") from None
    except (OSError, ValueError) as fault:
        why = fault.strerror if isinstance(fault, OSError) and fault.strerror else str(fault)
        raise Usage(f"cannot read {what}: {_named(file)}: {why}") from None
    if len(data) > MAX_INPUT:
        raise Usage(f"cannot read {what}: {_named(file)} has more than {MAX_INPUT // 1024**2} MiB")
    try:
        text = data.decode("utf-16" if data.startswith(BOMS) else "utf-8-sig")
    except UnicodeDecodeError as fault:
        raise Usage(f"cannot read {what}: {_named(file)} is not UTF-8 text (byte {fault.start + 1})") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _named(file: str) -> str:
    return "standard input" if file == "-" else file


def _takes_text(wanted: dict[str, Any]) -> bool:
    kinds = [wanted, *wanted.get("anyOf", []), *wanted.get("oneOf", [])]
    types = {t for kind in kinds for t in _list(kind.get("type"))}
    return not types or "string" in types


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
