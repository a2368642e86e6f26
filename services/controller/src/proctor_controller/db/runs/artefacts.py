"""SQL of artefacts: files that attempts named in their output, and the agents that can read them."""

from typing import NamedTuple

from proctor_common.messages.views import ArtefactView
from proctor_controller.db.session import Row, Session

MOST = 100
"""Attempts in one page."""

_FROM = """SELECT s.idx, s.name, s.target, a.attempt, a.agent_id, g.host, a.output -> 'artefacts' AS artefacts,
 a.output ->> 'workspace' AS workspace
FROM control.attempts a JOIN control.steps s ON s.id = a.step_id LEFT JOIN control.agents g ON g.id = a.agent_id
WHERE a.run_id = $1 AND CASE WHEN json_typeof(a.output -> 'artefacts') = 'array'
 THEN json_array_length(a.output -> 'artefacts') > 0 END"""


class PlaceInRun(NamedTuple):
    """The identity of an artefact in its run: numbers of step, attempt and artefact."""

    step: int = -1
    attempt: int = 0
    item: int = -1

    def __str__(self) -> str:
        return f"{self.step}-{self.attempt}-{self.item}"


class FoundArtefact(NamedTuple):
    """An artefact."""

    place: PlaceInRun
    view: ArtefactView
    agent: str
    """The agent that ran the attempt; ``target``: on which of its targets."""
    target: str | None


async def list_artefacts(session: Session, run: str, after: PlaceInRun) -> list[FoundArtefact]:
    """The artefacts of a run after ``after``, of at most MOST attempts."""
    rows = await session.fetch(
        f"""{_FROM} AND (s.idx, a.attempt) >= ($2::int, $3::int)
        ORDER BY s.idx, a.attempt LIMIT {MOST}""",
        run,
        after.step,
        after.attempt,
    )
    return [found for row in rows for found in _found(row) if found.place > after]


async def find_artefact(session: Session, run: str, place: PlaceInRun) -> FoundArtefact | None:
    """One artefact; None if there is none."""
    row = await session.fetchrow(f"{_FROM} AND s.idx = $2 AND a.attempt = $3", run, place.step, place.attempt)
    return None if row is None else next((found for found in _found(row) if found.place == place), None)


def _found(row: Row) -> list[FoundArtefact]:
    """The artefacts in an output, in the form that Proctor's own methods use; other forms are ignored."""
    found = []
    for number, item in enumerate(row["artefacts"]):
        match item:
            case {"path": str(path), "size": int(size), "sha256": str(digest)} if size >= 0:
                pass
            case _:
                continue
        place = PlaceInRun(row["idx"], row["attempt"], number)
        if not path.startswith("/"):
            if not (row["workspace"] or "").startswith("/"):
                continue
            path = f"{row['workspace'].rstrip('/')}/{path}"
        view = ArtefactView(
            id=str(place),
            step=row["name"],
            attempt=row["attempt"],
            host=row["host"],
            path=path,
            size=size,
            sha256=digest,
        )
        found.append(FoundArtefact(place, view, str(row["agent_id"]), row["target"]))
    return found
