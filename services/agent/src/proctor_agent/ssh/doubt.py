"""A command of whose start nothing was seen has ended: whether it never started, found out by one more command.

Start-up files may exit, or send the output elsewhere; then the program may have run though nobody saw it.
"""

import asyncio
import contextlib
import secrets

from proctor_agent.ssh.command import WireCommand
from proctor_agent.ssh.faults import SshFault
from proctor_agent.ssh.pool import Pool

LONGEST_S = 10.0


async def may_have_run(pool: Pool, exit_code: int | None) -> bool:
    """Whether the login shell gets as far as /bin/sh though what that prints does not arrive. ``exit_code``: of the
    command in question.
    """
    reached, turned_away = [code for code in (93, 94, 95) if code != exit_code][:2]
    tag = secrets.token_hex(8)
    line = (
        f"exec /bin/sh -c 'echo {tag[:8]}:{tag[8:]}; echo {tag[:8]}:{tag[8:]} >&2; "
        f"[ -e /proc/self/fd ] || exit {reached}; "
        f"[ -p /proc/self/fd/1 ] || [ -S /proc/self/fd/1 ] || exit {turned_away}; exit {reached}'"
    )
    wire = WireCommand(line=line, stdin=b"", close_stdin=True, tag=b"")
    printed = bytearray()
    with contextlib.suppress(SshFault, TimeoutError):
        async with asyncio.timeout(LONGEST_S):
            link, session = await pool.open(wire)
            try:
                while pieces := await session.take():
                    printed.extend(b"".join(data for _, data in pieces))
            finally:
                session.abort()
                pool.release(link)
            # The start script turns away where it can see that its output goes elsewhere: then nothing has run.
            return session.exit_code == reached and f"{tag[:8]}:{tag[8:]}".encode() not in printed
    return True
