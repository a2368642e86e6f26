"""Asks a connection's login shell whether it may run the script of a command itself. Never fails, never waits long."""

import asyncio

import asyncssh
import structlog

from proctor_agent.ssh import login_shell
from proctor_agent.ssh.channel import CommandSession
from proctor_agent.ssh.command import MarkerFilter
from proctor_agent.ssh.login_shell import LoginShell, Question
from proctor_agent.ssh.pool import Link, Pool, start
from proctor_common.states import Source

LIMIT_S = 5.0
"""What has not answered by then is taken for a shell that is not known."""
MAX_ANSWER = 512 * 1024

log = structlog.get_logger(__name__)


async def ask(pool: Pool) -> None:
    """Have the connection that the next command gets know its login shell, unless that has been asked. While it is
    asked one of the connection's channels is in use. Whoever gave no good answer is not asked again there.
    """
    link = pool.unasked
    if link is None:
        return
    shell: LoginShell | None = None
    link.channels += 1
    try:
        async with asyncio.timeout(LIMIT_S):
            shell = await _ask(link)
    except (TimeoutError, asyncssh.Error, OSError) as fault:
        log.debug("login_shell_not_known", target=pool.target.name, reason=type(fault).__name__)
    finally:
        pool.release(link)
    link.learn(shell)


async def _ask(link: Link) -> LoginShell | None:
    question = login_shell.first_question()
    noise, by_sh = await _answer(link, question)
    shell = login_shell.who_reads(question, noise)
    if shell is None:
        return None
    question = login_shell.second_question(shell)
    noise, by_shell = await _answer(link, question)
    if login_shell.is_untouched(shell, question, noise) and login_shell.are_alike(by_sh, by_shell):
        return shell
    return None


async def _answer(link: Link, question: Question) -> tuple[bytes, bytes]:
    """What was printed before the program started, and by it; nothing for more than may be an answer."""
    session = CommandSession()
    marker = MarkerFilter(question.wire.tag)
    noise, own = bytearray(), bytearray()
    try:
        await start(link.connection, session, question.line, question.wire)
        while pieces := await session.take():
            for source, data in pieces:
                if source is Source.STDOUT:
                    before, after = marker.feed(data)
                    noise += before
                    own += after
            if len(noise) + len(own) > MAX_ANSWER:
                return b"", b""
    finally:
        # Whoever hangs is to give back its place among the sessions of the connection.
        session.kill()
    return (bytes(noise), bytes(own)) if session.exit_code == 0 else (b"", b"")
