"""All subjects, streams, durables and queue names of the bus; they are spelled here only. No I/O.

Tokens are ids (``[A-Za-z0-9-]``), never names that people type: a host called ``a.b`` or ``*`` must not change a
subject. The agent comes first after the kind, so that an agent's credentials can be limited to its own subjects.
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
    """Subject on which an agent takes one kind of order (request/reply): start, cancel, query, drain or read."""
    if verb not in ORDERS:
        raise ValueError(f"no such order: {verb!r}")
    return f"{ROOT}.cmd.{_token(agent)}.{verb}"


def orders(agent: str) -> str:
    """All orders to one agent, to which its credentials let it subscribe."""
    return f"{ROOT}.cmd.{_token(agent)}.*"


def heartbeat(agent: str) -> str:
    """Subject of an agent's heartbeat, a request to the controllers' queue group."""
    return f"{ROOT}.hb.{_token(agent)}"


def registration(agent: str) -> str:
    """Subject of an agent's registration: its plugins, methods, targets and slots (request)."""
    return f"{ROOT}.reg.{_token(agent)}"


def event(agent: str, step: str, attempt: int) -> str:
    """Stream EVENT: an agent's reports on one attempt."""
    return f"{ROOT}.evt.{_token(agent)}.{_token(step)}.{attempt:d}"


def events_of(agent: str) -> str:
    """All events of one agent, which its credentials let it publish."""
    return f"{ROOT}.evt.{_token(agent)}.>"


def log(agent: str, run: str, step: str, attempt: int) -> str:
    """Stream LOG: the chunks of one attempt."""
    return f"{ROOT}.log.{_token(agent)}.{_token(run)}.{_token(step)}.{attempt:d}"


def logs_of(agent: str) -> str:
    """All log chunks of one agent, which its credentials let it publish."""
    return f"{ROOT}.log.{_token(agent)}.>"


def log_of_run(run: str) -> str:
    """Filter on stream LOG: all chunks of one run, whichever agents wrote them."""
    return f"{ROOT}.log.*.{_token(run)}.>"


def log_of_attempt(run: str, step: str, attempt: int) -> str:
    """Filter on stream LOG: the chunks of one attempt, whichever agents wrote them."""
    return f"{ROOT}.log.*.{_token(run)}.{_token(step)}.{attempt:d}"


def live_of_run(run: str) -> str:
    """Core notifications (headers only) of stored chunks of the run, which only wake tails."""
    return f"{ROOT}.live.*.{_token(run)}.>"


LOG_REPUBLISH = (f"{ROOT}.log.>", f"{ROOT}.live.>")
"""RePublish of stream LOG: source and destination."""


def call(op: str) -> str:
    """A request of the api to the controllers, by the operation's name (messages/calls.py)."""
    return f"{ROOT}.ctl.{op}"


def wake(run: str) -> str:
    """Core notification that a run changed; contains the events, so that watchers need no second request."""
    return f"{ROOT}.wake.{_token(run)}"


def records() -> str:
    """Core notification, empty: there are records for the Test API (``record.pending``)."""
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
    """An agent's name for its connections, by which a controller distinguishes its processes."""
    return f"agent/{agent}/{instance}"


def inbox_prefix(who: str) -> str:
    """The private inbox prefix of one identity, so that others cannot read its replies."""
    return f"_INBOX_{_token(who)}"


@dataclass(frozen=True, slots=True)
class AttemptOrigin:
    """The origin of an event or a log chunk, from its subject; credentials limit the agent to its own."""

    agent: str
    step: str
    attempt: int
    run: str | None = None


def parse_event(subject: str) -> AttemptOrigin | None:
    """The origin of a message on stream EVENT; None if the subject has another form."""
    match subject.split("."):
        case ["proctor", "v1", "evt", agent, step, attempt] if attempt.isdecimal():
            return AttemptOrigin(agent=agent, step=step, attempt=int(attempt))
        case _:
            return None


def parse_log(subject: str) -> AttemptOrigin | None:
    """The origin of a message on stream LOG; None if the subject has another form."""
    match subject.split("."):
        case ["proctor", "v1", "log", agent, run, step, attempt] if attempt.isdecimal():
            return AttemptOrigin(agent=agent, run=run, step=step, attempt=int(attempt))
        case _:
            return None


def agent_of(subject: str) -> str:
    """The agent's id in a heartbeat, registration, event or log subject: the only identity that a controller trusts."""
    return subject.split(".")[3]
