"""A pod, project or test case: a name, what is said of it, and what the server gave it. No I/O, no SQL."""

from dataclasses import dataclass
from typing import Any

import orjson

from proctor_api.catalog.faults import bad, forbidden

MAX_PATTERN = 256


@dataclass(frozen=True, slots=True)
class CatalogRecord:
    """One row. ``body``: the members beside the name, as JSON values; ``project``: a test case's."""

    id: str
    name: str
    body: dict[str, Any]
    creation_date: str
    project: str | None = None

    def view(self, fields: tuple[str, ...]) -> dict[str, Any]:
        """As clients see it."""
        project = {} if self.project is None else {"project_name": self.project}
        rest = {name: self.body.get(name) for name in fields}
        return {"_id": self.id, "name": self.name, **project, **rest, "creation_date": self.creation_date}

    def changed(self, wanted: dict[str, Any]) -> "CatalogRecord":
        """The record with what a PUT wants. Raises 403 where that is as it was."""
        body = dict(self.body)
        name, project = self.name, self.project
        for key, value in wanted.items():
            if key == "name":
                name = value
            elif key == "project_name":
                project = value
            else:
                body[key] = value
        made = CatalogRecord(self.id, name, body, self.creation_date, project)
        if (made.name, made.project) == (self.name, self.project) and all(
            value == self.body.get(key) for key, value in body.items()
        ):
            raise forbidden("nothing to update")
        return made


def record_of(row: Any) -> CatalogRecord:
    """The record in a row of id, name, body (as text), creation_date and, of cases, project_name."""
    project = row["project_name"] if "project_name" in row.keys() else None  # noqa: SIM118 - a row holds values
    return CatalogRecord(row["id"], row["name"], orjson.loads(row["body"]), row["creation_date"], project)


def named(records: list[CatalogRecord], pattern: str | None) -> list[CatalogRecord]:
    """Those whose name a regular expression finds, whatever the case. Linear time. Raises 400 for a bad pattern."""
    if not pattern:
        return records
    if len(pattern) > MAX_PATTERN:
        raise bad(f"name: a regular expression has at most {MAX_PATTERN} characters")
    import re2

    options = re2.Options()
    options.log_errors = False
    options.case_sensitive = False
    options.max_mem = 1 << 20
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as wrong:
        said = wrong.args[0] if wrong.args else ""
        text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        raise bad(f"name: not a regular expression that can be used: {text[:200]}") from None
    return [record for record in records if compiled.search(record.name)]
