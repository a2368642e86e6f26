"""Results and deployment results that started more than a day ahead of their arrival count as started then.

New ones are stored so; these came before. A result keeps its duration. A deployment result has no column for its
arrival: its id begins with the seconds of it.
"""

from alembic import op

revision = "0004_arrival"
down_revision = "0003_scenarios"

UP = """
UPDATE catalog.results SET
    start_at = stored_at,
    stop_at = CASE
        WHEN stop_at >= start_at AND stop_at < 'infinity' AND start_at < 'infinity'
        THEN stored_at + (stop_at - start_at)
        ELSE '-infinity'
    END
WHERE start_at > stored_at + interval '1 day';

UPDATE catalog.results SET stop_at = '-infinity'
WHERE stop_at > stored_at + interval '1 day' AND start_at <> stored_at;

UPDATE catalog.deployresults SET start_at = to_timestamp(('x' || left(id, 8))::bit(32)::bigint)
WHERE start_at > to_timestamp(('x' || left(id, 8))::bit(32)::bigint) + interval '1 day'
"""


def upgrade() -> None:
    for statement in UP.split(";"):
        if statement.strip():
            op.execute(statement)
