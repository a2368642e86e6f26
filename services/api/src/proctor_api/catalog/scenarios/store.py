"""SQL of scenarios. A scenario is one row, which changes lock."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg
import orjson
from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_api.catalog.faults import bad, forbidden, unknown
from proctor_api.catalog.scenarios.edits import Edit
from proctor_api.catalog.scenarios.shape import Installer, Scenario
from proctor_common.pg import changing, session

LARGEST = 8 * 1024 * 1024
"""Bytes of JSON of a scenario at most."""
_INSTALLERS = TypeAdapter(list[Installer])
_COLUMNS = "SELECT id, name, creator, installers::text AS installers, creation_date FROM catalog.scenarios"
_MATCHES = {
    "installer": "@.installer == $installer",
    "version": "exists(@.versions[*] ? (@.version == $version))",
    "project": "exists(@.versions[*].projects[*] ? (@.project == $project))",
}
"""JSON path conditions; all given ones must hold within the same installer."""
_EQUAL = {"name": "name", "creator": "creator", "_id": "id", "creation_date": "creation_date"}


@dataclass(frozen=True, slots=True)
class Made:
    """What the server adds to a new scenario."""

    id: str
    creator: str
    creation_date: str


class Scenarios:
    """Each method is one transaction. Raises the errors of ``faults``, and ``database_unavailable``."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def list(self, query: Mapping[str, str]) -> list[dict[str, Any]]:
        """Scenarios that match all conditions, oldest first; none for an unknown field."""
        parts, values = ["true"], []
        for word, value in query.items():
            if word in _EQUAL:
                values.append(value)
                parts.append(f"{_EQUAL[word]} = ${len(values)}")
        if set(query) - set(_EQUAL) - set(_MATCHES):
            return []
        within = {word: value for word, value in query.items() if word in _MATCHES}
        if within:
            values.append(orjson.dumps(within).decode())
            path = " && ".join(_MATCHES[word] for word in within)
            parts.append(f"jsonb_path_exists(installers, '$[*] ? ({path})', ${len(values)}::text::jsonb)")
        async with session(self._engine) as connection:
            rows = await connection.fetch(f"{_COLUMNS} WHERE {' AND '.join(parts)} ORDER BY id", *values)
        return [_view(row) for row in rows]

    async def get(self, name: str) -> dict[str, Any]:
        """One scenario. Raises 404."""
        async with session(self._engine) as connection:
            row = await connection.fetchrow(f"{_COLUMNS} WHERE name = $1", name)
        if row is None:
            raise unknown("scenario", name)
        return _view(row)

    async def add(self, scenario: Scenario, made: Made) -> None:
        """Store a new one. Raises 403 if the name exists."""
        try:
            async with session(self._engine) as connection:
                await connection.execute(
                    "INSERT INTO catalog.scenarios (id, name, creator, installers, creation_date)"
                    " VALUES ($1, $2, $3, $4::text::jsonb, $5)",
                    made.id,
                    scenario.name,
                    scenario.creator or made.creator,
                    _text_of(scenario.installers),
                    made.creation_date,
                )
        except asyncpg.UniqueViolationError:
            raise _exists(scenario.name) from None

    async def edit(self, name: str, edit: Edit) -> None:
        """Change the installers. Raises 404, 409; 400 if the scenario would be over LARGEST bytes."""
        async with changing(self._engine) as connection:
            query = "SELECT id, installers::text AS installers FROM catalog.scenarios WHERE name = $1 FOR UPDATE"
            row = await connection.fetchrow(query, name)
            if row is None:
                raise unknown("scenario", name)
            text = _text_of(edit(_INSTALLERS.validate_json(row["installers"])))
            if len(text) > LARGEST:
                raise bad(f"the scenario would be larger than {LARGEST} bytes")
            await connection.execute(
                "UPDATE catalog.scenarios SET installers = $2::text::jsonb WHERE id = $1", row["id"], text
            )

    async def rename(self, name: str, new: str) -> dict[str, Any]:
        """Rename one. Returns the record. Raises 404; 403 if the name is unchanged or exists."""
        try:
            async with changing(self._engine) as connection:
                row = await connection.fetchrow(f"{_COLUMNS} WHERE name = $1 FOR UPDATE", name)
                if row is None:
                    raise unknown("scenario", name)
                if new == name:
                    raise forbidden("nothing to update")
                await connection.execute("UPDATE catalog.scenarios SET name = $2 WHERE id = $1", row["id"], new)
        except asyncpg.UniqueViolationError:
            raise _exists(new) from None
        return {**_view(row), "name": new}

    async def delete(self, name: str) -> None:
        """Delete one. Raises 404."""
        async with session(self._engine) as connection:
            done = await connection.execute("DELETE FROM catalog.scenarios WHERE name = $1", name)
        if done == "DELETE 0":
            raise unknown("scenario", name)


def _view(row: Any) -> dict[str, Any]:
    return {
        "_id": row["id"],
        "name": row["name"],
        "creator": row["creator"],
        "creation_date": row["creation_date"],
        "installers": orjson.Fragment(row["installers"]),
    }


def _text_of(installers: list[Installer]) -> str:
    return _INSTALLERS.dump_json(installers).decode()


def _exists(name: str) -> Exception:
    return forbidden(f"the scenario {name} exists already")
