"""Pods, projects and test cases as records: a name, members, and what the server adds. No I/O."""

from dataclasses import dataclass
from typing import Any

import orjson

from proctor_api.catalog.faults import bad, forbidden

MAX_PATTERN = 256


@dataclass(frozen=True, slots=True)
class CatalogRecord:
    """A pod, project or test case."""

    id: str
    name: str
    body: dict[str, Any]
    """The other members, as JSON values."""
    creation_date: str
    project: str | None = None
    """The project of a test case; None for others."""

    def view(self, fields: tuple[str, ...]) -> dict[str, Any]:
        """As clients see it."""
        project = {} if self.project is None else {"project_name": self.project}
        rest = {name: self.body.get(name) for name in fields}
        return {"_id": self.id, "name": self.name, **project, **rest, "creation_date": self.creation_date}

    def changed(self, wanted: dict[str, Any]) -> "CatalogRecord":
        """The record with the changes of a PUT. Raises 403 if nothing would change."""
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
    """The record of a row with id, name, body (as text), creation_date and, for test cases, project_name."""
    project = row["project_name"] if "project_name" in row.keys() else None  # noqa: SIM118 - a row holds values
    return CatalogRecord(row["id"], row["name"], orjson.loads(row["body"]), row["creation_date"], project)


def named(records: list[CatalogRecord], pattern: str | None) -> list[CatalogRecord]:
    """The records whose name matches an RE2 pattern somewhere, ignoring case; all without one. Raises 400."""
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
        raise bad(f"name: not a usable regular expression: {text[:200]}") from None
    return [record for record in records if compiled.search(record.name)]
