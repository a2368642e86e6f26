"""Results by the many: NDJSON in and out, long lists, readers that are slow."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from proctor_api.catalog import streams
from proctor_cli.app import run_app
from support.api_world import FIRST_TOKEN, Api
from support.wait import eventually

IMPORT, EXPORT, RESULTS = "/v1/results/import", "/v1/results/export", "/api/v1/results"
NAMES = {"pod_name": "lab", "project_name": "functest", "case_name": "vPing"}


def line(**changes: Any) -> bytes:
    return json.dumps({**NAMES, **changes}).encode()


async def post(api: Api, *lines: bytes, **params: Any) -> dict[str, Any]:
    answer = await api.call("POST", IMPORT, params=params, content=b"\n".join(lines))
    assert answer.status_code == 200, answer.text
    report: dict[str, Any] = answer.json()
    return report


async def fill(api: Api, count: int, size: int = 10) -> None:
    """Results with ascending dates, in the database itself; of every hundredth the details are large."""
    await post(api, line(), declare=True)
    connection = await asyncpg.connect(api.database.dsn)
    await connection.execute("DELETE FROM catalog.results")
    await connection.execute(
        "INSERT INTO catalog.results (id, pod_name, project_name, case_name, build_tag, start_at, stop_at, size,"
        " details) SELECT lpad(to_hex(n), 24, '0'), 'lab', 'functest', 'vPing', n::text,"
        " '2026-01-01'::timestamptz + n / 2 * interval '1 second', '-infinity', length(d) + 2, to_json(d)"
        " FROM (SELECT n, repeat('x', CASE WHEN n % 100 = 0 THEN 40000 ELSE $2::int END) AS d"
        " FROM generate_series(1, $1::int) AS n) AS made",
        count,
        size,
    )
    await connection.close()


async def test_what_is_exported_can_be_imported(api: Api) -> None:
    sent = [line(build_tag=str(n), start_date=f"2026-01-01 00:00:{n:02d}", details={"n": n}) for n in range(30)]
    assert await post(api, *sent, declare=True) == {"stored": 30, "known": 0, "refused": 0, "errors": []}
    exported = await api.call("GET", EXPORT)
    assert exported.headers["content-type"] == "application/x-ndjson"
    lines = exported.content.splitlines()
    assert [json.loads(each)["details"]["n"] for each in lines] == list(range(29, -1, -1))
    assert await post(api, *lines) == {"stored": 0, "known": 30, "refused": 0, "errors": []}
    some = (await api.call("GET", EXPORT, params={"last": 3, "descend": "false", "page": 1})).content.splitlines()
    assert [json.loads(each)["build_tag"] for each in some] == ["0", "1", "2"]
    assert (await api.call("GET", EXPORT, params={"to": "soon"})).status_code == 400
    connection = await asyncpg.connect(api.database.dsn)
    await connection.execute("DELETE FROM catalog.results")
    await connection.close()
    assert (await post(api, *lines))["stored"] == 30
    assert (await api.call("GET", EXPORT)).content == exported.content


async def test_a_line_that_cannot_be_stored_holds_up_no_other(api: Api) -> None:
    await post(api, line(), declare=True)
    report = await post(
        api,
        line(),
        b"",
        b"no json",
        b"[]",
        line(pod_name=None),
        line(pod_name="other"),
        line(case_name="other"),
        line(details="X").replace(b'"X"', b'"\xff"'),
        line(details="X").replace(b'"X"', b"[" * 200 + b"]" * 200),
        b"  " + line() + b"\r",
        line(),
    )
    assert (report["stored"], report["refused"]) == (3, 7)
    told = {fault["line"]: fault["message"] for fault in report["errors"]}
    assert sorted(told) == [3, 4, 5, 6, 7, 8, 9]
    assert (told[6], told[7]) == ("no such pod: other", "no such project or test case: functest/other")


async def test_import_is_streamed_and_bounded(start_api: Any) -> None:
    api: Api = await start_api(result_limit=4096)

    async def chunks() -> AsyncIterator[bytes]:
        whole = b"\n".join(line(details="x" * 1000) for _ in range(2000)) + b"\n"
        for start in range(0, len(whole), 1013):
            yield whole[start : start + 1013]

    answer = await api.call("POST", IMPORT, params={"declare": True}, content=chunks())
    assert answer.json()["stored"] == 2000
    largest = {
        "pod_name": "lab",
        "project_name": "functest",
        "case_name": "vPing",
        "build_tag": "largest",
        "details": "",
    }
    largest["details"] = "x" * (4096 - len(json.dumps(largest)))
    assert len(json.dumps(largest)) == 4096
    posted = await api.call("POST", RESULTS, content=json.dumps(largest))
    assert posted.status_code == 200, posted.text
    exported = (await api.call("GET", EXPORT, params={"build_tag": "largest"})).content
    assert (await api.call("POST", IMPORT, content=exported)).json()["known"] == 1
    long = await api.call("POST", IMPORT, content=line() + b"\n" + line(details="x" * 5000))
    assert (long.status_code, "line 2" in long.json()["detail"]) == (413, True)
    assert (await api.call("POST", IMPORT, await api.token("viewer"), content=line())).status_code == 403
    assert (await api.http.get(EXPORT)).status_code == 401


async def test_a_long_list_comes_whole_and_in_order(api: Api) -> None:
    await fill(api, 1050)
    answer = await api.call("GET", RESULTS)
    body = answer.json()
    assert [result["build_tag"] for result in body["results"]] == [str(n) for n in range(1050, 0, -1)]
    assert body["pagination"] == {"current_page": 1, "total_pages": 1}
    assert all(len(r["details"]) == (40000 if int(r["build_tag"]) % 100 == 0 else 10) for r in body["results"])
    turned = (await api.call("GET", RESULTS, params={"descend": "false", "last": 777})).json()["results"]
    assert [result["build_tag"] for result in turned] == [str(n) for n in range(1, 778)]
    assert len((await api.call("GET", EXPORT)).content.splitlines()) == 1050


async def test_readers_that_do_not_read_keep_no_connection(
    start_api: Any, monkeypatch: pytest.MonkeyPatch, processes: Any
) -> None:
    monkeypatch.setattr(streams, "PATIENCE", 0.1)
    api: Api = await start_api(database_pool=1)
    await fill(api, 6000, 8000)
    host, _, port = api.settings.http.partition(":")
    request = f"GET {RESULTS} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {FIRST_TOKEN}\r\n\r\n"
    sockets = [await asyncio.open_connection(host, int(port)) for _ in range(8)]
    for _, writer in sockets:
        writer.write(request.encode())
    connection = await asyncpg.connect(api.database.dsn)

    async def idle() -> bool:
        busy = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'proctor-api' AND state <> 'idle'"
        return int(await connection.fetchval(busy)) == 0

    await eventually(idle, 20, "the connections to be given back")
    assert (await api.call("GET", RESULTS, params={"last": 1})).status_code == 200
    for reader, writer in sockets[1:]:
        writer.close()
        assert reader is not None
    await connection.close()
    # The one that goes on reading gets all of it, though its cursor was closed under it.
    whole = await asyncio.wait_for(sockets[0][0].read(), 30)
    assert whole.count(b'"_id"') == 6000
    assert whole.rstrip().endswith(b"0")


@pytest.fixture
def local(api: Api, monkeypatch: pytest.MonkeyPatch) -> Api:
    """An api that the commands find."""
    monkeypatch.setenv("PROCTOR_URL", api.url)
    monkeypatch.setenv("PROCTOR_TOKEN", FIRST_TOKEN)
    return api


async def test_the_command_pushes_lists_and_exports(local: Api, tmp_path: Any, capfdbinary: Any) -> None:
    async def run(*words: str) -> tuple[int, bytes, bytes]:
        capfdbinary.readouterr()
        code = await asyncio.to_thread(run_app, ["results", *words])
        said = capfdbinary.readouterr()
        return code, said.out, said.err

    one, many = tmp_path / "one.json", tmp_path / "many.ndjson"
    one.write_text(json.dumps({**NAMES, "criteria": "PASS"}, indent=2))
    many.write_bytes(b"\n".join(line(criteria="FAIL", build_tag=str(n)) for n in range(3)) + b"\n{\n")
    code, _, err = await run("push", str(one))
    assert (code, b"line 1: no such pod: lab" in err) == (1, True)
    code, _, err = await run("push", str(one), "--declare")
    assert (code, b"1 stored, 0 refused" in err) == (0, True)
    code, out, _ = await run("push", str(many), "-o", "json")
    assert (code, json.loads(out)["stored"], json.loads(out)["errors"][0]["line"]) == (1, 3, 4)
    code, out, _ = await run("list", "--criteria", "FAIL", "--last", "2", "-o", "json")
    assert (code, len(json.loads(out))) == (0, 2)
    code, out, _ = await run("list")
    assert (code, out.count(b"functest")) == (0, 4)
    code, out, _ = await run("export", "--criteria", "FAIL")
    assert (code, len(out.splitlines())) == (0, 3)
    assert (await run("push", str(tmp_path / "none")))[0] == 2
    code, _, err = await run("list", "--from", "soon")
    assert (code, b"--from: not a date: 'soon'" in err) == (2, True)
