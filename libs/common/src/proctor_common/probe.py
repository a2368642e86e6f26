"""A small HTTP server for monitoring a service that has no other one: ``/healthz`` and ``/metrics``.

It runs in its own thread, so that it shows when the service's event loop is stuck.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry

from proctor_common.metrics import CONTENT_TYPE, render
from proctor_common.service import StartError

StartResponse = Callable[[str, list[tuple[str, str]]], Any]
Health = Callable[[], str]
"""Returns why the service is not well; empty if it is. Called from another thread."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    timeout = 5

    def log_message(self, *_: Any) -> None:
        """Log nothing: there is a probe every few seconds."""


@contextmanager
def serve_probe(address: str, registry: CollectorRegistry, health: Health) -> Iterator[int]:
    """Answer at ``host:port`` inside the context; yields the port (useful if 0 was given).

    ``/healthz`` is 200 ``ok``, or 503 and the reason; ``/metrics`` is for Prometheus. Raises StartError.
    """
    host, _, port = address.rpartition(":")

    def answer(environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/healthz":
            reason = health()
            status, kind, body = "503 Service Unavailable" if reason else "200 OK", "text/plain", reason or "ok"
            start(status, [("Content-Type", f"{kind}; charset=utf-8")])
            return [f"{body}\n".encode()]
        if environ["PATH_INFO"] == "/metrics":
            start("200 OK", [("Content-Type", CONTENT_TYPE)])
            return [render(registry)]
        start("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
        return [b"here are /healthz and /metrics\n"]

    try:
        server = make_server(host.strip("[]") or "127.0.0.1", int(port), answer, _Server, _Silent)
    except (OSError, ValueError, OverflowError) as fault:
        raise StartError(f"metrics_http: cannot listen on {address}: {fault}") from None
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, name="probe", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(2)
