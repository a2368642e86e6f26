"""A run's log, or its events, as they come: a websocket, resumed at its cursor after each loss of the connection."""

import json
import random
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidProxyStatus, InvalidStatus, InvalidUpgrade
from websockets.sync.client import ClientConnection, connect

from proctor_cli.client import Client
from proctor_cli.endpoint import Endpoint
from proctor_cli.faults import Refused, Unreachable
from proctor_cli.render import talk

SILENCE = 45.0
"""Seconds without any frame after which the connection counts as dead (a heartbeat comes every 15 s)."""
QUIET = (3.0, 15.0)
"""Seconds without a frame after which a ``quiet`` frame is given: the first time, and at most."""
QUIET_FRAME = '{"type": "quiet"}'
PATIENCE = 120.0
"""Seconds without a connection after which a tail gives up."""
ASK_EVERY = (1.0, 5.0)
"""Seconds between two requests if there is no websocket: after new frames, and at most."""
FINAL = {
    4400: "the api does not take that cursor or step",
    4401: "no or wrong token",
    4403: "not allowed",
    4404: "no such run",
}


HEARTBEAT = '{"type":"heartbeat"}'
LOG = "logs/tail"
EVENTS = "events"


def follow(
    endpoint: Endpoint,
    run: str,
    *,
    step: str | None = None,
    after: str | None = None,
    feed: str = LOG,
    tell_quiet: bool = False,
) -> Iterator[dict[str, Any]]:
    """The frames of a run's tail, from ``after`` (a cursor; None: line 1) to its ``end`` frame, each once. ``feed``:
    LOG, or EVENTS for only its changes of state. ``tell_quiet``: yield a frame of type ``quiet`` from time to time
    while nothing comes.

    Raises Refused if the api refuses it, Unreachable after PATIENCE seconds without a connection.
    """
    cursor = after
    last_seen = time.monotonic()
    pause = 0.1
    while True:
        try:
            with _open(endpoint, run, feed, step, cursor) as socket:
                for text in _frames_of(socket, tell_quiet=tell_quiet):
                    last_seen, pause = time.monotonic(), 0.1
                    frame = json.loads(text)
                    cursor = frame.get("cursor", cursor)
                    if frame["type"] != "heartbeat":
                        yield frame
                    if frame["type"] == "end":
                        return
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else 0
            if closed.rcvd and code in FINAL:
                raise Refused(code - 4000, "closed", closed_because(code, closed.rcvd.reason)) from None
        except (InvalidStatus, InvalidProxyStatus, InvalidUpgrade) as refused:
            if _is_websocket_unknown(endpoint, refused):
                yield from _ask_again_and_again(endpoint, run, feed, step, cursor)
                return
        except (OSError, TimeoutError, InvalidHandshake):
            pass  # lost or not up: tried again below, for PATIENCE seconds
        if time.monotonic() - last_seen > PATIENCE:
            again = f"proctor logs -f {run}" if feed == LOG else f"proctor show {run} --events -f"
            raise Unreachable(f"{endpoint.url} has not answered for {PATIENCE:.0f} s; `{again}` goes on")
        time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
        pause = min(pause * 2, 5.0)


def _frames_of(socket: ClientConnection, *, tell_quiet: bool) -> Iterator[str | bytes]:
    """The messages. Raises TimeoutError after SILENCE seconds, and the exception with which the connection ends."""
    heard, quiet = time.monotonic(), QUIET[0]
    while True:
        left = heard + SILENCE - time.monotonic()
        try:
            text = socket.recv(timeout=min(left, quiet) if tell_quiet else left)
        except TimeoutError:
            if left <= quiet or not tell_quiet:
                raise
            quiet = min(quiet * 2, QUIET[1])
            yield QUIET_FRAME
            continue
        heard = time.monotonic()
        if text != HEARTBEAT:
            quiet = QUIET[0]
        yield text


def _is_websocket_unknown(endpoint: Endpoint, refused: InvalidStatus | InvalidProxyStatus | InvalidUpgrade) -> bool:
    """Whether something before the api does not support websockets; prints a note then. False: try again. Raises
    Refused, Unreachable.
    """
    status = 400 if isinstance(refused, InvalidUpgrade) else refused.response.status_code
    if status == 407:
        raise Unreachable(f"the proxy on the way to {endpoint.url} wants a user and a password")
    if status in (401, 403) and isinstance(refused, InvalidStatus):
        raise Refused(status, "refused", f"the api refused the tail: HTTP {status}")
    if status >= 500 or status == 429:
        return False
    talk(f"no websocket gets through to {endpoint.url} (HTTP {status}): asking again and again", style="yellow")
    return True


def _ask_again_and_again(
    endpoint: Endpoint, run: str, feed: str, step: str | None, cursor: str | None
) -> Iterator[dict[str, Any]]:
    """The same frames by plain requests, a little later. Raises Refused, Unreachable."""
    seen, pause = 0, ASK_EVERY[0]
    with Client(endpoint) as client:
        while True:
            # Ask for the state before reading the log: if the run is finished, its log is complete.
            about = client.get(f"/v1/runs/{run}")
            came = False
            for event in client.items(f"/v1/runs/{run}/events", after=seen):
                came, seen = True, event["seq"]
                if feed == EVENTS or step in (None, event["step"]):
                    yield {**event, "type": event["kind"], "state": event["to"]}
            for frame in stored_frames(client, run, step=step, after=cursor) if feed == LOG else ():
                if frame["type"] != "end":
                    came, cursor = True, frame["cursor"]
                    yield frame
            if about["state"] == "finished":
                yield {"type": "end", "result": about["result"]}
                return
            pause = ASK_EVERY[0] if came else min(pause * 1.5, ASK_EVERY[1])
            time.sleep(pause)


def stored_frames(client: Client, run: str, **which: Any) -> Iterator[dict[str, Any]]:
    """The frames that a run has logged so far: chunks and gaps. Raises Refused, Unreachable."""
    rest = b""
    for piece in client.stream(f"/v1/runs/{run}/logs", format="ndjson", **which):
        *lines, rest = (rest + piece).split(b"\n")
        yield from (json.loads(line) for line in lines)


def closed_because(code: int, reason: str) -> str:
    """A final close code as text; for a wrong request the api's own reason."""
    return reason if code == 4400 and reason else FINAL[code]


def _open(endpoint: Endpoint, run: str, feed: str, step: str | None, cursor: str | None) -> ClientConnection:
    query = urlencode({k: v for k, v in (("step", step), ("after", cursor)) if v is not None})
    url = f"ws{endpoint.url.removeprefix('http')}/v1/runs/{quote(run, safe='')}/{feed}?{query}"
    headers = {"Authorization": f"Bearer {endpoint.token}"} if endpoint.token else {}
    return connect(
        url,
        additional_headers=headers,
        compression=None,
        max_size=None,
        open_timeout=10,
        proxy=endpoint.proxy(),
        close_timeout=1,
        ssl=endpoint.tls(),
    )
