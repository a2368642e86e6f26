"""SQL of duties: the controller that does a periodic job has a lease, with an epoch that grows with each holder."""

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True, slots=True)
class Held:
    """A duty that this controller holds, valid as long as the row says so."""

    name: str
    epoch: int


async def claim_duty(connection: AsyncConnection, name: str, owner: str, lease: float) -> Held | None:
    """Take a duty that nobody holds, for ``lease`` seconds; None if another controller holds it."""
    # Read first: an upsert that changes nothing would lock and rewrite the row each time.
    taken = "SELECT expires_at > now() FROM control.duties WHERE name = :name"
    if await connection.scalar(text(taken), {"name": name}):
        return None
    epoch = await connection.scalar(
        text("""INSERT INTO control.duties AS d (name, owner, epoch, expires_at)
             VALUES (:name, :owner, 1, now() + make_interval(secs => :lease))
             ON CONFLICT (name) DO UPDATE SET owner = :owner, epoch = d.epoch + 1,
                 expires_at = now() + make_interval(secs => :lease)
             WHERE d.expires_at <= now()
             RETURNING epoch"""),
        {"name": name, "owner": owner, "lease": lease},
    )
    return None if epoch is None else Held(name=name, epoch=int(epoch))


async def renew_duty(connection: AsyncConnection, held: Held, lease: float) -> bool:
    """Hold it for ``lease`` seconds more; False if it was lost, even if only its time is over."""
    done = await connection.execute(
        text("""UPDATE control.duties SET expires_at = now() + make_interval(secs => :lease)
             WHERE name = :name AND epoch = :epoch AND expires_at > now()"""),
        {"name": held.name, "epoch": held.epoch, "lease": lease},
    )
    return bool(done.rowcount)


async def release_duty(connection: AsyncConnection, held: Held) -> None:
    """Let another controller take it at once."""
    await connection.execute(
        text("UPDATE control.duties SET expires_at = now() WHERE name = :name AND epoch = :epoch"),
        {"name": held.name, "epoch": held.epoch},
    )


async def holds_duty(connection: AsyncConnection, held: Held) -> bool:
    """Whether the duty is still held; nobody can take it before this transaction ends.

    The first statement of every transaction in which a duty writes, so that a controller that was paused changes
    nothing when it continues.
    """
    found = await connection.scalar(
        text("""SELECT 1 FROM control.duties WHERE name = :name AND epoch = :epoch AND expires_at > now()
             FOR SHARE"""),
        {"name": held.name, "epoch": held.epoch},
    )
    return found is not None
