"""``runs_on``: a role, role[i], each role, or a place; with a matrix it may differ for each cell. Pure."""

import re
from collections.abc import Mapping
from typing import Any

from proctor_common.ids import GROUP_NAME, HOST_NAME
from proctor_controller.domain.documents.spelling import hint
from proctor_controller.domain.hosts.placement import Placement
from proctor_controller.domain.plan import resources
from proctor_controller.domain.plan.matrix import Cells
from proctor_controller.domain.plan.model import Path, RunsOn
from proctor_controller.domain.plan.reader import Unknown
from proctor_controller.domain.plan.templates import Names, Templates

_ROLE = re.compile(r"(?P<each>each\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_-]{0,62})(?:\[(?P<index>[0-9]{1,4})\])?\Z")
NOWHERE = RunsOn()
"""It is unknown, or has a fault."""


def read_runs_on(
    reader: Templates, value: Any, path: Path, *, keys: frozenset[str] | None = None, cells: Cells | None = None
) -> tuple[RunsOn, ...]:
    """Where a step runs: one place for all instances, or one for each cell if it reads the matrix. ``keys``: of the
    matrix (None: unknown, empty: no matrix); ``cells``: None if they are unknown.
    """
    roots = {"params"} if keys == frozenset() else {"params", "matrix"}
    template = reader.early_template(value, path, Names(frozenset(roots), matrix=keys))
    if isinstance(template, Unknown):
        return (NOWHERE,)
    if not reader.reads(template, "matrix"):
        return (_read(reader, reader.fill_early(template, path), path),)
    found = [_read(reader, reader.fill_early(template, path, {"matrix": cell}), path) for cell in cells or ()]
    return tuple(found) if found and NOWHERE not in found else (NOWHERE,)


def _read(reader: Templates, value: Any, path: Path) -> RunsOn:
    if isinstance(value, Unknown):
        return NOWHERE
    if isinstance(value, str):
        return _on_role(reader, value, path)
    place = reader.mapping(value, path, ("host", "group", "labels"))
    if len(place) != 1:
        if isinstance(value, Mapping) and (place or not value):
            reader.fault(path, "give exactly one of host, group and labels")
        return NOWHERE
    if "host" in place:
        return RunsOn(Placement(host=reader.text(place["host"], (*path, "host"), HOST_NAME)))
    if "group" in place:
        return RunsOn(Placement(group=reader.text(place["group"], (*path, "group"), GROUP_NAME)))
    labels = resources.read_labels(reader, place["labels"], (*path, "labels"))
    return RunsOn(Placement(labels=tuple(sorted(labels.items()))))


def _on_role(reader: Templates, value: str, path: Path) -> RunsOn:
    roles = reader.known.roles
    found = _ROLE.match(value.strip())
    if found is None or (found["each"] and found["index"]):
        reader.fault(path, "must be a role, role[i], or each role; or {host: …}, {group: …} or {labels: …}")
        return NOWHERE
    name, index = found["name"], int(found["index"] or 0)
    if name not in roles:
        if "hosts" not in reader.known.unread:
            reader.fault(path, f"there is no role {name!r}{hint(name, roles)}", "unknown_name")
        return NOWHERE
    size = reader.known.sizes.get(f"hosts.{name}")
    if index and (size is None or index >= size):
        if size is not None:
            hosts = "1 host" if size == 1 else f"{size} hosts"
            reader.fault(path, f"role {name} has {hosts}: the last one is {name}[{size - 1}]")
        index = 0
    return RunsOn(role=name, role_index=index, each=bool(found["each"]))
