"""A run's log as it grows, or its events: a websocket, taken up again at its cursor whenever the connection is lost."""

import json
import random
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from proctor_cli.endpoint import Endpoint
from proctor_cli.faults import Refused, Unreachable

SILENCE = 45.0
"""Seconds without any frame after which the connection counts as dead (a heartbeat comes every 15 s)."""
PATIENCE = 120.0
"""Seconds without a connection after which a tail gives up."""
FINAL = {
    4400: "the api does not take that cursor or step",
    4401: "no or wrong token",
    4403: "not allowed",
    4404: "no such run",
}


LOG = "logs/tail"
EVENTS = "events"


def follow(
    endpoint: Endpoint, run: str, *, step: str | None = None, after: str | None = None, feed: str = LOG
) -> Iterator[dict[str, Any]]:
    """The frames of a run's tail, from ``after`` (a cursor; None: line 1) to its ``end`` frame, each once.
    ``feed``: LOG, or EVENTS for its changes of state alone.

    Raises Refused where the api will not give it, Unreachable after PATIENCE seconds without a connection.
    """
    cursor = after
    last_seen = time.monotonic()
    pause = 0.1
    while True:
        try:
            with _open(endpoint, run, feed, step, cursor) as socket:
                while True:
                    frame = json.loads(socket.recv(timeout=SILENCE))
                    last_seen, pause = time.monotonic(), 0.1
                    cursor = frame.get("cursor", cursor)
                    if frame["type"] != "heartbeat":
                        yield frame
                    if frame["type"] == "end":
                        return
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else 0
            if closed.rcvd and code in FINAL:
                raise Refused(code - 4000, "closed", closed_because(code, closed.rcvd.reason)) from None
        except InvalidStatus as refused:
            status = refused.response.status_code
            if status < 500 and status != 429:
                raise Refused(status, "refused", f"the api refused the tail: HTTP {status}") from None
        except (OSError, TimeoutError, InvalidHandshake):
            pass  # lost or not up: tried again below, until patience ends
        if time.monotonic() - last_seen > PATIENCE:
            again = f"proctor logs -f {run}" if feed == LOG else f"proctor show {run} --events -f"
            raise Unreachable(f"{endpoint.url} has not answered for {PATIENCE:.0f} s; `{again}` goes on")
        time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
        pause = min(pause * 2, 5.0)


def closed_because(code: int, reason: str) -> str:
    """A final close code in words: what was asked wrongly says the api itself."""
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
        proxy=None,
        close_timeout=1,
        ssl=endpoint.tls(),
    )
