"""Every subject, stream, durable and queue name on the bus; nobody else spells one. No I/O.

Tokens are ids (``[A-Za-z0-9-]``), never names people type: a host called ``a.b`` or ``*`` must not be able to bend
a subject. The agent comes first behind the kind, so that an agent's credentials can be held to its own subjects.
"""

import re
from dataclasses import dataclass

ROOT = "proctor.v1"

LOG_STREAM = "LOG"
EVENT_STREAM = "EVENT"
EVENT_DURABLE = "controllers"
CONTROLLERS = "controllers"
"""Queue group of the controllers: a request is answered by one replica."""

LOG_SUBJECTS = f"{ROOT}.log.>"
EVENT_SUBJECTS = f"{ROOT}.evt.>"
LIVE_SUBJECTS = f"{ROOT}.live.>"
ORDERS = ("start", "cancel", "query", "drain", "read")

AUTH_CALLOUT = "$SYS.REQ.USER.AUTH"
ALL_HEARTBEATS = f"{ROOT}.hb.*"
ALL_REGISTRATIONS = f"{ROOT}.reg.*"
ALL_CALLS = f"{ROOT}.ctl.>"
ALL_WAKES = f"{ROOT}.wake.*"
DIRECT_GET_LOG = f"$JS.API.DIRECT.GET.{LOG_STREAM}"

_TOKEN = re.compile(r"^[A-Za-z0-9-]{1,64}\Z")


def _token(value: str) -> str:
    if not _TOKEN.match(value):
        raise ValueError(f"not a subject token: {value!r}")
    return value


def order(agent: str, verb: str) -> str:
    """Where an agent takes one kind of order (request/reply): start, cancel, query, drain or read."""
    if verb not in ORDERS:
        raise ValueError(f"no such order: {verb!r}")
    return f"{ROOT}.cmd.{_token(agent)}.{verb}"


def orders(agent: str) -> str:
    """All orders to one agent: what its credentials let it subscribe."""
    return f"{ROOT}.cmd.{_token(agent)}.*"


def heartbeat(agent: str) -> str:
    """Where an agent sends its heartbeat, as a request to the controllers' queue group."""
    return f"{ROOT}.hb.{_token(agent)}"


def registration(agent: str) -> str:
    """Where an agent says which plugins, methods, targets and slots it has (request)."""
    return f"{ROOT}.reg.{_token(agent)}"


def event(agent: str, step: str, attempt: int) -> str:
    """Stream EVENT: what an agent reports of one attempt."""
    return f"{ROOT}.evt.{_token(agent)}.{_token(step)}.{attempt:d}"


def events_of(agent: str) -> str:
    """All events of one agent: what its credentials let it publish."""
    return f"{ROOT}.evt.{_token(agent)}.>"


def log(agent: str, run: str, step: str, attempt: int) -> str:
    """Stream LOG: the chunks of one attempt."""
    return f"{ROOT}.log.{_token(agent)}.{_token(run)}.{_token(step)}.{attempt:d}"


def logs_of(agent: str) -> str:
    """All log chunks of one agent: what its credentials let it publish."""
    return f"{ROOT}.log.{_token(agent)}.>"


def log_of_run(run: str) -> str:
    """Filter on stream LOG: all chunks of one run, whichever agents wrote them."""
    return f"{ROOT}.log.*.{_token(run)}.>"


def log_of_attempt(run: str, step: str, attempt: int) -> str:
    """Filter on stream LOG: the chunks of one attempt, whichever agents wrote them."""
    return f"{ROOT}.log.*.{_token(run)}.{_token(step)}.{attempt:d}"


def live_of_run(run: str) -> str:
    """Core notifications (headers only) that a chunk of the run was stored: they only wake a tail."""
    return f"{ROOT}.live.*.{_token(run)}.>"


LOG_REPUBLISH = (f"{ROOT}.log.>", f"{ROOT}.live.>")
"""RePublish of stream LOG: source and destination."""


def call(op: str) -> str:
    """A request of the api to the controllers, by the operation's name (messages/calls.py)."""
    return f"{ROOT}.ctl.{op}"


def wake(run: str) -> str:
    """Core notification that a run changed; carries the events so that watchers need no second trip."""
    return f"{ROOT}.wake.{_token(run)}"


def records() -> str:
    """Core notification, empty: the controllers have something to record (``record.pending``)."""
    return f"{ROOT}.rec"


POOL_WAKE = f"{ROOT}.pool.wake"
"""Core notification to all controllers that the volume pool has work; without content."""


def kick(server: str) -> str:
    """System account: ask a server to close one client's connection."""
    return f"$SYS.REQ.SERVER.{_token(server)}.KICK"


PING_CONNECTIONS = "$SYS.REQ.SERVER.PING.CONNZ"
"""System account: ask all servers for their connections; each one answers."""


def op_of(subject: str) -> str:
    """The operation's name in the subject of a call."""
    return subject.removeprefix(ALL_CALLS[:-1])


def client_name(agent: str, instance: str) -> str:
    """What an agent calls each of its connections, so that a controller can tell its processes apart."""
    return f"agent/{agent}/{instance}"


def inbox_prefix(who: str) -> str:
    """The private inbox prefix of one identity, so that nobody can listen to another's replies."""
    return f"_INBOX_{_token(who)}"


@dataclass(frozen=True, slots=True)
class AttemptOrigin:
    """What the subject of an event or a log chunk says of its origin; the credentials hold the agent to it."""

    agent: str
    step: str
    attempt: int
    run: str | None = None


def parse_event(subject: str) -> AttemptOrigin | None:
    """The origin of a message on stream EVENT; None where the subject has another shape."""
    match subject.split("."):
        case ["proctor", "v1", "evt", agent, step, attempt] if attempt.isdecimal():
            return AttemptOrigin(agent=agent, step=step, attempt=int(attempt))
        case _:
            return None


def parse_log(subject: str) -> AttemptOrigin | None:
    """The origin of a message on stream LOG; None where the subject has another shape."""
    match subject.split("."):
        case ["proctor", "v1", "log", agent, run, step, attempt] if attempt.isdecimal():
            return AttemptOrigin(agent=agent, run=run, step=step, attempt=int(attempt))
        case _:
            return None


def agent_of(subject: str) -> str:
    """The agent's id in a heartbeat, registration, event or log subject: the only identity a controller believes."""
    return subject.split(".")[3]
