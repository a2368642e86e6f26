"""The api over HTTP for the commands: JSON in, JSON out; a fault is an exception with the api's own sentence."""

import os
import ssl
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import httpx

from proctor_cli.endpoint import Endpoint
from proctor_cli.faults import Refused, Unreachable, Usage
from proctor_common.ids import new_id

TIMEOUT = httpx.Timeout(30.0, connect=5.0)
PATIENCE = (0.5, 1.0, 2.0, 2.0)
"""Seconds before each repeat of a request that was answered 503 and may be repeated."""


class Client:
    """One connection pool to one api; use it as a context manager."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        headers = {"Authorization": f"Bearer {endpoint.token}"} if endpoint.token else {}
        # Proxies of the environment are used, but never for loopback.
        named = endpoint.proxy()
        trust = ssl.create_default_context() if named and named.startswith("https:") else None
        proxy = httpx.Proxy(named, ssl_context=trust) if named else None
        self._http = httpx.Client(
            base_url=endpoint.url,
            headers=headers,
            timeout=TIMEOUT,
            verify=endpoint.tls() or False,
            proxy=proxy,
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, path: str, **params: Any) -> Any:
        """The JSON at ``path``. Parameters that are None are left out. Raises Refused, Unreachable."""
        return self._call("GET", path, params={k: v for k, v in params.items() if v is not None})

    def post(self, path: str, body: Any = None, *, starts: bool = False) -> Any:
        """POST a JSON body. ``starts``: send an Idempotency-Key, so that a repeat after a broken connection starts
        nothing a second time.
        """
        headers = {"Idempotency-Key": new_id()} if starts else {}
        for attempt in range(3):
            try:
                return self._call("POST", path, json=body, headers=headers)
            except Unreachable:
                if not starts or attempt == 2:
                    raise
        raise AssertionError("unreachable")

    def put(self, path: str, body: Any = None) -> Any:
        """PUT a JSON body."""
        return self._call("PUT", path, json=body)

    def delete(self, path: str) -> Any:
        """DELETE the resource at ``path``."""
        return self._call("DELETE", path)

    def items(self, path: str, *, most: int | None = None, **params: Any) -> Iterator[Any]:
        """The items of a list, page by page; at most ``most`` (None: all)."""
        cursor: str | None = None
        left = most
        while left is None or left > 0:
            page = self.get(path, cursor=cursor, limit=100 if left is None else min(left, 100), **params)
            yield from page["items"]
            left = None if left is None else left - len(page["items"])
            if page["next"] is None:
                return
            if page["next"] == cursor:
                raise Unreachable(f"{self.endpoint.url}{path} returns the same page again: the api has another version")
            cursor = page["next"]

    def stream(self, path: str, **params: Any) -> Iterator[bytes]:
        """The body at ``path``, in chunks as they arrive."""
        try:
            given = {k: v for k, v in params.items() if v is not None}
            with self._http.stream("GET", path, params=given) as answer:
                if answer.status_code >= 400:
                    answer.read()
                    raise _refusal(answer)
                yield from answer.iter_bytes()
        except httpx.HTTPError as fault:
            raise _unreachable(self.endpoint, fault) from None

    def save(self, path: str, file: Path, **params: Any) -> None:
        """Write the body at ``path`` to a file: completely or not at all. A device, a pipe, or the file that is
        standard output gets it as it arrives. Raises Usage, Refused, Unreachable.
        """
        try:
            if str(file) == "-" or is_standard_output(file):
                _copy(self.stream(path, **params), sys.stdout.buffer)
                sys.stdout.buffer.flush()
            elif file.exists() and not file.is_file():
                with file.open("wb") as sink:
                    _copy(self.stream(path, **params), sink)
            else:
                self._save_whole(path, file.resolve(), params)
        except BrokenPipeError:
            raise
        except OSError as fault:
            raise Usage(f"cannot write {file}: {fault.strerror or fault}") from None

    def _save_whole(self, path: str, file: Path, params: dict[str, Any]) -> None:
        part = file.with_name(f"{file.name}.part")
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as sink:
                _copy(self.stream(path, **params), sink)
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)

    def upload(self, path: str, chunks: Iterable[bytes], **params: Any) -> Any:
        """POST a body that is read while it is sent; returns the JSON of the answer. Raises Refused, Unreachable."""
        headers = {"Content-Type": "application/x-ndjson"}
        timeout = httpx.Timeout(300.0, connect=5.0)
        try:
            answer = self._http.post(path, params=params, content=chunks, headers=headers, timeout=timeout)
        except httpx.HTTPError as fault:
            raise _unreachable(self.endpoint, fault) from None
        if answer.status_code >= 400:
            raise _refusal(answer)
        return answer.json()

    def _call(self, verb: str, path: str, **how: Any) -> Any:
        repeatable = verb == "GET" or "Idempotency-Key" in (how.get("headers") or {})
        for patience in PATIENCE if repeatable else ():
            answer = self._send(verb, path, **how)
            if answer.status_code != 503:
                break
            time.sleep(patience)  # a part of the system is restarting
        else:
            answer = self._send(verb, path, **how)
        if answer.status_code >= 400:
            raise _refusal(answer, starting="Idempotency-Key" in (how.get("headers") or {}))
        return answer.json() if answer.content else None

    def _send(self, verb: str, path: str, **how: Any) -> httpx.Response:
        try:
            return self._http.request(verb, path, **how)
        except httpx.HTTPError as fault:
            raise _unreachable(self.endpoint, fault) from None


def is_standard_output(file: Path) -> bool:
    """Whether the path is standard output itself (``/dev/stdout``, or the same file that ``>`` leads to)."""
    try:
        return os.path.samestat(file.stat(), os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError):
        return False


def _copy(chunks: Iterable[bytes], sink: BinaryIO) -> None:
    for chunk in chunks:
        sink.write(chunk)


def _unreachable(endpoint: Endpoint, fault: Exception) -> Unreachable:
    if "CERTIFICATE_VERIFY_FAILED" in str(fault):
        return Unreachable(
            f"{endpoint.url} shows a certificate that is not trusted: SSL_CERT_FILE names the CA's (`proctor init` "
            f"makes it: tls/ca.crt), or the certificate is for other names: {fault}"
        )
    if isinstance(fault, httpx.ConnectError):
        return Unreachable(f"nothing answers at {endpoint.url}: start it with `proctor up`, or set PROCTOR_URL")
    return Unreachable(f"{endpoint.url} does not answer: {str(fault) or type(fault).__name__}")


def _refusal(answer: httpx.Response, *, starting: bool = False) -> Refused:
    what = ""
    try:
        problem = answer.json()
        message = problem.get("detail") or problem.get("title") or problem.get("message") or answer.reason_phrase
        code = str(problem.get("code", answer.status_code))
        errors = problem.get("errors")
        what = str(problem.get("what", ""))
    except (ValueError, AttributeError):
        message, code, errors = f"HTTP {answer.status_code} {answer.reason_phrase}", str(answer.status_code), None
    if answer.status_code == 401:
        message = f"{message} (set PROCTOR_TOKEN, or give --token-file)"
    listed = errors if isinstance(errors, list) else None
    return Refused(answer.status_code, code, message, listed, what=what, starting=starting)
