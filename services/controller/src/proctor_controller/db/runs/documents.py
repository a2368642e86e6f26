"""SQL of the document that a run was made from."""

from collections.abc import Sequence

from proctor_common.messages.views import DocumentView
from proctor_controller.db.runs.views import RunKey
from proctor_controller.db.session import Session


async def find_document(session: Session, key: RunKey, groups: Sequence[str] | None) -> DocumentView | None:
    """The document of a run, if the run is there and may be seen by who belongs to ``groups`` (None: all)."""
    row = await session.fetchrow(
        """SELECT id, plan, plan_version, document FROM control.runs
        WHERE (id = $1::uuid OR number = $2::bigint) AND ($3::text[] IS NULL OR group_name = ANY($3::text[]))""",
        key.id,
        key.number,
        None if groups is None else list(groups),
    )
    if row is None:
        return None
    return DocumentView(run=str(row["id"]), plan=row["plan"], version=row["plan_version"], document=row["document"])
