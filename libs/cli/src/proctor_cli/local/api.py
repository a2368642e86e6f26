"""The launcher's requests to the api: readiness, agents, enrolment. Standard library only, to start fast."""

import http.client
import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

TIMEOUT = 5.0


class NoAnswer(Exception):
    """The api did not answer, or not with what was asked for; ``status``: of its answer, 0 for none."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class LocalApi:
    """An api on this machine. Blocking: for use in a thread."""

    url: str
    token: str | None
    ca: Path | None = None

    def is_ready(self) -> bool:
        """Whether it reaches NATS and PostgreSQL."""
        try:
            return self._ask("GET", "/readyz")[0] == 200
        except NoAnswer:
            return False

    def agents(self) -> dict[str, dict[str, Any]]:
        """The agents by host. Raises NoAnswer."""
        found: dict[str, dict[str, Any]] = {}
        cursor = ""
        while True:
            status, page = self._ask("GET", f"/v1/agents?limit=1000{cursor}")
            if status != 200:
                raise NoAnswer(_refusal(status, page), status)
            found.update({agent["host"]: agent for agent in page["items"]})
            if not page.get("next"):
                return found
            cursor = f"&cursor={page['next']}"

    def enrol(self, host: str) -> str:
        """A join token for the host. Raises NoAnswer."""
        status, answer = self._ask("POST", "/v1/agents/enrolments", {"host": host, "groups": [], "labels": {}})
        if status not in {200, 201, 202}:
            raise NoAnswer(_refusal(status, answer), status)
        return str(answer["token"])

    def _ask(self, verb: str, path: str, body: Any = None) -> tuple[int, Any]:
        parts = urlsplit(self.url)
        host, port = parts.hostname or "127.0.0.1", parts.port
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=self.ca)
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=TIMEOUT, context=context
            )
        else:
            connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
        headers = {"Accept": "application/json"}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(verb, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            content = answer.read()
            return answer.status, json.loads(content) if content else None
        except ValueError:
            return answer.status, None
        except (OSError, http.client.HTTPException) as fault:
            raise NoAnswer(str(fault) or type(fault).__name__) from None
        finally:
            connection.close()


def _refusal(status: int, problem: Any) -> str:
    """The sentence of an answer that is no success."""
    detail = problem.get("detail") or problem.get("title") if isinstance(problem, dict) else None
    return f"{detail or 'refused'} (HTTP {status})"
