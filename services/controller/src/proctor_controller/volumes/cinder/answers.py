"""Parses answers of block storage: volumes, pages, errors, versions. Pure.

An error is JSON with one top-level key whose value has ``code`` and ``message``; the key differs with the kind
(``badRequest``, ``itemNotFound``, ``overLimit``, ``error``, ``computeFault``). Proxies before the service may answer in
HTML.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from proctor_controller.volumes.backend import (
    BackendBusy,
    BackendDown,
    BackendFault,
    BadRequest,
    FoundState,
    FoundVolume,
    QuotaRefused,
)

VOLUME_KEY = "proctor_volume"
INSTALLATION_KEY = "proctor_installation"
LOWEST, WISHED = (3, 31), (3, 70)
STATES = {
    "creating": FoundState.CREATING,
    "downloading": FoundState.CREATING,
    "available": FoundState.AVAILABLE,
    "in-use": FoundState.IN_USE,
    "attaching": FoundState.IN_USE,
    "detaching": FoundState.IN_USE,
    "reserved": FoundState.IN_USE,
    "deleting": FoundState.DELETING,
    "error": FoundState.ERROR,
    "error_deleting": FoundState.ERROR_DELETING,
}
_TAG = re.compile(r"<[^<>]{0,500}>")
_PROJECT_PATH = re.compile(r"/v3(?:/[^/]{1,64})?/?\Z")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of any status; ``body`` is the JSON object, empty if there was none."""

    status: int
    body: Mapping[str, Any]
    text: str = field(repr=False, default="")
    retry_after: float | None = None
    request_id: str = ""


def read_json(text: str) -> Mapping[str, Any]:
    """The object in the text; empty for anything else."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def seconds_of(header: str | None) -> float | None:
    """``Retry-After`` in seconds; None for a date."""
    try:
        seconds = float(header or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < 86_400 else None


def message_of(answer: Answer) -> str:
    """The answer's message, as one line."""
    for value in answer.body.values():
        if isinstance(value, dict) and value.get("message"):
            return _line(str(value["message"]))
    if answer.body:
        return "no message"
    # Only the title and text of an HTML page, without scripts and styles.
    return _line(_TAG.sub(" ", answer.text[:2000])) or "no message"


def is_gone(answer: Answer) -> bool:
    """Whether block storage itself says that there is no such thing; a proxy's 404 does not count."""
    return answer.status == 404 and "itemNotFound" in answer.body


def fault_of(answer: Answer, doing: str) -> BackendFault:
    """The fault for an answer of 400 or more after which nothing was done; a 5xx counts as down."""
    message = f"{doing}: {answer.status}: {message_of(answer)}"
    message += f" ({answer.request_id})" if answer.request_id else ""
    if answer.status == 401:
        return BackendDown(f"the cloud refuses a fresh token: {message}")
    if answer.status == 429 or (answer.status == 413 and answer.retry_after):
        return BackendBusy(message, answer.retry_after or None)
    if answer.status == 413:
        return QuotaRefused(message)
    if answer.status >= 500 or (answer.status == 404 and not is_gone(answer)):
        return BackendDown(message)
    return BadRequest(message)


def volume_of(given: Any, installation: str, reason: str = "") -> FoundVolume | None:
    """The volume, if it is of this installation; None for others' volumes and for anything else."""
    if not isinstance(given, dict) or not isinstance(given.get("id"), str):
        return None
    marks = given.get("metadata")
    if not isinstance(marks, dict) or marks.get(INSTALLATION_KEY) != installation or not marks.get(VOLUME_KEY):
        return None
    status = str(given.get("status") or "")
    state = STATES.get(status, FoundState.OTHER)
    return FoundVolume(
        backend_id=given["id"],
        volume_id=str(marks[VOLUME_KEY]),
        name=str(given.get("name") or ""),
        type=str(given.get("volume_type") or ""),
        size_gb=given["size"] if isinstance(given.get("size"), int) else 0,
        state=state,
        created_at=time_of(given.get("created_at")),
        reason=reason or (status if state is FoundState.OTHER else ""),
    )


def time_of(text: Any) -> datetime | None:
    """Cinder's times: ISO in UTC, with or without microseconds, without a zone."""
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def next_marker(body: Mapping[str, Any]) -> str | None:
    """The marker of the next page; None on the last one. Only the marker of the link is used, as its address may be
    reachable only inside the cloud.
    """
    for link in _objects(body.get("volumes_links")):
        if link.get("rel") == "next":
            _, _, query = str(link.get("href")).partition("?")
            marker = parse_qs(query).get("marker")
            return marker[0] if marker else None
    return None


def version_of(body: Mapping[str, Any]) -> tuple[int, int] | None:
    """The highest microversion of API 3 that a version document names."""
    for version in _objects(body.get("versions")):
        if str(version.get("id")).startswith("v3"):
            return _pair(str(version.get("version") or ""))
    return None


def microversion(highest: tuple[int, int]) -> str:
    """The one to request. Raises BadRequest below 3.31, which ignores unknown filters and would list all volumes."""
    if highest < LOWEST:
        raise BadRequest(
            f"this block storage speaks microversions up to {highest[0]}.{highest[1]}; the pool needs 3.31 or newer "
            "(OpenStack Pike was 3.27, Queens is 3.50)"
        )
    major, minor = min(WISHED, highest)
    return f"{major}.{minor}"


def root_of(endpoint: str) -> str:
    """The address that lists the versions: the endpoint without its ``/v3/<project>``."""
    return _PROJECT_PATH.sub("", endpoint)


def base_of(endpoint: str, project: str) -> str:
    """The base address of calls; some catalogs omit the project."""
    return f"{endpoint}/{project}" if endpoint.endswith("/v3") else endpoint


def room_of(body: Mapping[str, Any]) -> int | None:
    """How many volumes the quota leaves; None if it is unlimited or unknown. 0 if no gigabyte is left."""
    limits = body.get("limits")
    absolute = limits.get("absolute") if isinstance(limits, dict) else None
    if not isinstance(absolute, dict):
        return None
    volumes = _left(absolute, "maxTotalVolumes", "totalVolumesUsed")
    gigabytes = _left(absolute, "maxTotalVolumeGigabytes", "totalGigabytesUsed")
    known = [left for left in (volumes, gigabytes) if left is not None]
    return min(known, default=None)


def _left(absolute: Mapping[str, Any], most: str, used: str) -> int | None:
    limit, taken = absolute.get(most), absolute.get(used)
    if not isinstance(limit, int) or not isinstance(taken, int) or limit < 0:
        return None
    return max(0, limit - taken)


def _objects(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _pair(text: str) -> tuple[int, int] | None:
    major, _, minor = text.partition(".")
    known = major.isascii() and minor.isascii() and major.isdigit() and minor.isdigit() and len(text) < 12
    return (int(major), int(minor)) if known else None


def _line(text: str) -> str:
    return " ".join(text.split())[:300]
