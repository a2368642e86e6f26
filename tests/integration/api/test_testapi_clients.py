"""What the Test API's clients of today send, byte for byte, and what each of them makes of the answer.

Written down from xtesting 1.3.0, xtesting-db-populate 1.3.2 and perceval-opnfv 1.1.11 against a running system; none of
them is needed here.
"""

import asyncio
import json
import re
from typing import Any

from support.api_world import Api

LIKE_REQUESTS = (
    "User-Agent: python-requests/2.34.2\r\nAccept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: keep-alive\r\n"
)
XTESTING = (
    '{"build_tag": "jenkins-functest-fuel-baremetal-daily-master-108", "case_name": "first", "criteria": "PASS", '
    '"details": {"a.b": {"$c": [1]}}, "installer": "fuel", "pod_name": "xtesting-pod", "project_name": "xtesting", '
    '"scenario": "os-nosdn", "start_date": "2026-11-21 05:11:12", "stop_date": "2026-11-21 05:11:42", '
    '"version": "master"}'
)
PERCEVAL = "/api/v1/results?from=1970-01-01+00%3A00%3A00&page={page}&to=2026-11-22+05%3A11%3A42"


class Wire:
    """One connection that is kept alive, as the clients' library keeps it."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._host, _, self._port = api.settings.http.partition(":")
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(
        self, method: str, path: str, body: str | None = None, kind_first: bool = False
    ) -> tuple[int, bytes]:
        """Status and body of the answer to a request, written as the client's library writes it."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, int(self._port))
        reader, writer = self._streams
        about = []
        if body is not None:
            about = [f"Content-Length: {len(body)}\r\n", "Content-Type: application/json\r\n"]
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._api.settings.http}\r\n{LIKE_REQUESTS}"
        writer.write((head + "".join(reversed(about) if kind_first else about) + "\r\n" + (body or "")).encode())
        async with asyncio.timeout(10):
            answer = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = re.search(r"content-length: (\d+)", answer.lower())
            assert length is not None, answer
            return int(answer.split()[1]), await reader.readexactly(int(length[1]))

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()


async def test_clients_that_send_no_token(start_api: Any) -> None:
    api: Api = await start_api(anonymous="results")
    wire = Wire(api)
    try:
        # xtesting-db-populate: look, and declare what is not there; a second round declares nothing.
        things = (
            ("/api/v1/pods", "xtesting-pod"),
            ("/api/v1/projects", "xtesting"),
            ("/api/v1/projects/xtesting/cases", "first"),
        )
        for path, name in things:
            assert (await wire.send("GET", f"{path}/{name}"))[0] == 404
            assert (await wire.send("POST", path, json.dumps({"name": name})))[0] == 200
            assert (await wire.send("GET", f"{path}/{name}"))[0] == 200
        # xtesting: the id is cut out of the href.
        for _ in range(25):
            status, answer = await wire.send("POST", "/api/v1/results", XTESTING, kind_first=True)
            assert status == 200
            assert re.fullmatch(r"[0-9a-f]{24}", re.sub(r"^.*/api/v1/results/*", "", json.loads(answer)["href"]))
        # perceval-opnfv: pages until the last one.
        found: list[Any] = []
        page, pages = 1, 1
        while page <= pages:
            status, answer = await wire.send("GET", PERCEVAL.format(page=page))
            assert status == 200
            content = json.loads(answer)
            found += content["results"]
            assert content["pagination"]["current_page"] == page
            page, pages = page + 1, content["pagination"]["total_pages"]
        assert (len(found), len({result["_id"] for result in found}), pages) == (25, 25, 2)
        sent = json.loads(XTESTING)
        assert all(result.items() >= sent.items() for result in found)
    finally:
        wire.close()
