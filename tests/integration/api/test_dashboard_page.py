"""The page of results in a real browser: at a desk, on a phone, empty, filtered, with hostile names. Needs Chromium."""

import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from playwright.async_api import Browser, Page, ViewportSize, async_playwright, expect

from proctor_api.catalog.dashboard import overview
from support.api_world import FIRST_TOKEN, Api

HOSTILE = "<img src=x onerror=alert(1)>\"'&"
DESK: ViewportSize = {"width": 1280, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}
RUN, STEP = "0195f3a0-0000-7000-8000-000000000001", "0195f3a0-0000-7000-8000-000000000002"


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium is installed")
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield started
        await started.close()


@pytest.fixture
async def page(browser: Browser, api: Api) -> AsyncIterator[Page]:
    """A page that fails the test when its policy is broken, a script fails or a request goes elsewhere."""
    opened = await browser.new_page(base_url=api.url, viewport=DESK, timezone_id="UTC", locale="en-GB")
    faults: list[str] = []
    opened.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("dialog", lambda dialog: faults.append(f"dialog: {dialog.message}"))
    opened.on("request", lambda r: faults.append(r.url) if not r.url.startswith((api.url, "data:")) else None)
    yield opened
    assert [fault for fault in faults if "401" not in fault] == []


async def log_in(page: Page) -> None:
    """By the page itself, as a stranger comes to it."""
    await page.goto("/dashboard/")
    await page.wait_for_url("**/login?next=dashboard")
    await page.get_by_label("Token").fill(FIRST_TOKEN)
    await page.get_by_role("button", name="Log in").click()
    await page.wait_for_url("**/dashboard/")


async def drawn(page: Page) -> None:
    """Wait until the last choice is on the screen."""
    await expect(page.locator("body[data-drawn]")).to_be_attached()
    await expect(page.locator("body[data-busy]")).to_have_count(0)


async def store(api: Api, rows: list[dict[str, Any]]) -> None:
    """Results of the last weeks, as many at once."""
    names = sorted({(row["project_name"], row["case_name"]) for row in rows})
    for pod in sorted({row["pod_name"] for row in rows}):
        await api.call("POST", "/api/v1/pods", json={"name": pod})
    for project in sorted({project for project, _ in names}):
        await api.call("POST", "/api/v1/projects", json={"name": project})
    connection = await asyncpg.connect(api.database.dsn)
    await connection.executemany(
        "INSERT INTO catalog.cases (id, project_name, name, body, creation_date) VALUES ($1, $2, $3, '{}', '')",
        [(f"{number:024x}", project, case) for number, (project, case) in enumerate(names)],
    )
    columns = ["pod_name", "project_name", "case_name", "installer", "version", "scenario"]
    columns += ["criteria", "start_at", "stop_at", "run", "step"]
    await connection.executemany(
        f"INSERT INTO catalog.results (id, size, attempt, start_date, {', '.join(columns)})"
        f" VALUES ($1, 0, $2, $3, {', '.join(f'${place}' for place in range(4, 4 + len(columns)))})",
        [
            (f"{n:024x}", None if row.get("run") is None else 1, str(row["start_at"]), *(row.get(c) for c in columns))
            for n, row in enumerate(rows)
        ],
    )
    await connection.close()


def history(days: int = 28) -> list[dict[str, Any]]:
    """Four weeks of three scenarios and six cases, some of which fail in a fixed way."""
    now = datetime.now(UTC).replace(microsecond=0)
    rows: list[dict[str, Any]] = []
    scenarios = ["os-nosdn-nofeature-ha", "os-odl_l2-nofeature-ha", "os-onos-sfc-noha"]
    cases = [("functest", c) for c in ("vPing", "Tempest_full-run", "Rally", "ODL")] + [
        ("yardstick", c) for c in ("Ping", "Fio")
    ]
    for day in range(days):
        for s, scenario in enumerate(scenarios):
            for c, (project, case) in enumerate(cases):
                if (case == "ODL" and s == 0) or (s == 2 and case == "Fio"):
                    continue
                number = day * 31 + s * 7 + c * 3
                failed = number % (4 + 3 * s) == 0 or (s == 2 and c == 1 and day < 5)
                start = now - timedelta(days=day, hours=1 + c, minutes=s * 11)
                rows.append(
                    {
                        "pod_name": ("lf-pod1", "zte-pod2")[number % 2],
                        "project_name": project,
                        "case_name": case,
                        "installer": ("apex", "fuel", "joid")[s],
                        "version": "master",
                        "scenario": scenario,
                        "criteria": "FAIL" if failed else "PASS",
                        "start_at": start,
                        "stop_at": start + timedelta(seconds=40 + 300 * c + number % 37 * (1 + c)),
                    }
                )
    rows[0] |= {"run": RUN, "step": STEP}
    return rows


async def test_an_empty_page_says_what_to_do_next(page: Page, api: Api) -> None:
    await log_in(page)
    await expect(page.get_by_role("heading", name="No results yet")).to_be_visible()
    await expect(page.get_by_text("proctor results push")).to_be_visible()
    await expect(page.locator("#board")).to_be_hidden()
    old = datetime.now(UTC) - timedelta(days=400)
    row = {"pod_name": "lab", "project_name": "p", "case_name": "c", "criteria": "PASS"}
    await store(api, [{**row, "start_at": old, "stop_at": old}])
    await page.reload()
    await page.get_by_role("button", name="Show ten years").click()
    await drawn(page)
    await expect(page.locator("#tile-runs")).to_have_text("1")
    await expect(page.locator("#matrix th[scope=row]")).to_have_text(["(no scenario)"])
    await page.get_by_role("button", name="Log out").click()
    await page.wait_for_url("**/login")
    # An address that was passed on keeps its choices over the log-in.
    await page.goto("/dashboard?days=90&scenario=os%26nosdn%23%C3%BC")
    await page.wait_for_url("**/login?next=dashboard&days=90&scenario=os%26nosdn%23%C3%BC")
    await page.get_by_label("Token").fill(FIRST_TOKEN)
    await page.get_by_role("button", name="Log in").click()
    await page.wait_for_url("**/dashboard/?days=90&scenario=os%26nosdn%23%C3%BC")
    await expect(page.get_by_role("heading", name="Nothing matches")).to_be_visible()
    # So does the page of which the session ends.
    await page.context.clear_cookies()
    await page.get_by_label("Period").select_option("365")
    await page.wait_for_url("**/login?next=dashboard&days=365&scenario=os%26nosdn%23%C3%BC")


async def test_figures_charts_matrix_and_the_way_to_a_run_at_a_desk_and_on_a_phone(page: Page, api: Api) -> None:
    rows = history()
    await store(api, rows)
    await log_in(page)
    await drawn(page)
    failed = sum(row["criteria"] == "FAIL" for row in rows)
    await expect(page.locator("#tile-runs")).to_have_text(str(len(rows)))
    await expect(page.locator("#tile-failed")).to_have_text(str(failed))
    await expect(page.locator("#tile-rate")).to_have_text(f"{100 * (1 - failed / len(rows)):.1f} %")
    cells = page.locator("#matrix button.cell")
    await expect(cells).to_have_count(16)
    await expect(page.locator("#matrix .cell.blank")).to_have_count(2)
    tops = "rows => rows.map(row => new Set([...row.querySelectorAll('.cell')].map(cell => cell.offsetTop)).size)"
    assert set(await page.locator("#matrix tbody tr").evaluate_all(tops)) == {1}
    # From a cell to its results, and from there to the run and its log.
    await page.get_by_role("button", name="vPing on os-nosdn-nofeature-ha").click()
    await expect(page.locator("#results-of")).to_contain_text("vPing on os-nosdn-nofeature-ha: the newest 20")
    await expect(page.locator("#results tbody tr")).to_have_count(20)
    await page.get_by_role("button", name="Show more").click()
    await expect(page.locator("#results tbody tr")).to_have_count(28)
    await expect(page.get_by_role("button", name="Show more")).to_be_hidden()
    recorded = page.locator("#results tbody tr").filter(has=page.get_by_role("link", name="log"))
    await expect(recorded).to_have_count(1)
    assert await recorded.get_by_role("link", name="run").get_attribute("href") == f"../v1/runs/{RUN}"
    assert await recorded.get_by_role("link", name="log").get_attribute("href") == f"../v1/runs/{RUN}/logs?step={STEP}"
    # From a point of a chart to its results.
    at = await page.evaluate(
        "() => { const chart = Chart.getChart('rate'); const meta = chart.getDatasetMeta(0);"
        " const { x, y } = meta.data[meta.data.length - 2]; return { x, y }; }"
    )
    await page.locator("#rate").click(position=at)
    await expect(page.locator("#results-of")).to_contain_text("16 in all")
    # Grouped and filtered; the address keeps the choice.
    await page.locator("#by").select_option("scenario")
    await expect(page.locator("#legend li")).to_have_text(
        ["os-odl_l2-nofeature-ha", "os-nosdn-nofeature-ha", "os-onos-sfc-noha"]
    )
    await page.locator("[name=project]").select_option("yardstick")
    await page.locator("[name=installer]").select_option("joid")
    await expect(page.locator("#tile-runs")).to_have_text("28")
    await page.reload()
    await drawn(page)
    await expect(page.locator("#tile-runs")).to_have_text("28")
    await page.locator("[name=pod]").select_option("lf-pod1")
    await page.locator("[name=days]").select_option("1")
    await page.get_by_role("button", name="Clear").click()
    await expect(page.locator("#tile-runs")).to_have_text(str(len(rows)))
    # On a phone, in the dark.
    await page.set_viewport_size(PHONE)
    await page.emulate_media(color_scheme="dark")
    await page.reload()
    await drawn(page)
    width = await page.evaluate("() => document.documentElement.scrollWidth")
    assert width <= PHONE["width"], "the page itself must not scroll sideways"
    # A name goes on in the next line behind a separator, and nowhere else.
    lines: list[list[Any]] = await page.evaluate(
        "() => [...document.querySelectorAll('#matrix th')].flatMap((th) => [...th.childNodes])"
        ".filter((node) => node.nodeType === Node.TEXT_NODE).map((node) => { const range = document.createRange();"
        " range.selectNodeContents(node); return [node.data, range.getClientRects().length]; })"
    )
    assert {text for text, _ in lines} >= {"Tempest_", "full-", "run", "vPing"}
    assert [text for text, count in lines if count != 1] == []
    for canvas in ("#rate", "#seconds"):
        box = await page.locator(canvas).bounding_box()
        assert box is not None
        assert 250 < box["width"] <= PHONE["width"]


async def test_hostile_names_stay_text(page: Page, api: Api) -> None:
    now = datetime.now(UTC)
    hostile = dict.fromkeys(
        ["pod_name", "project_name", "case_name", "installer", "version", "scenario", "criteria"], HOSTILE
    )
    await store(api, [{**hostile, "start_at": now, "stop_at": now}])
    await log_in(page)
    await drawn(page)
    await page.locator("#by").select_option("case")
    await expect(page.locator("#legend li")).to_have_text([HOSTILE])
    await page.locator("#matrix button.cell").click()
    await expect(page.locator("#results-of")).to_contain_text(HOSTILE)
    await expect(page.locator("#results .badge")).to_have_text(f"? {HOSTILE}")
    await page.locator("[name=project]").select_option(HOSTILE)
    await expect(page.locator("#tile-runs")).to_have_text("1")
    assert await page.locator("main img").count() == 0


async def test_the_figures_behind_the_page(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = history()
    await store(api, rows)
    trend = (await api.call("GET", "/v1/dashboard/trend?by=case&days=90")).json()
    assert trend["sum"]["runs"] == len(rows)
    assert (trend["bucket_seconds"], trend["truncated"], trend["left_off"]) == (86400, False, 0)
    assert [series["name"] for series in trend["series"]][-2:] == ["Fio", "ODL"]
    assert sum(point["runs"] for series in trend["series"] for point in series["points"]) == len(rows)
    matrix = (await api.call("GET", "/v1/dashboard/matrix?scenario=os-nosdn-nofeature-ha&case=Rally")).json()
    (cell,) = matrix["cells"]
    mine = [r for r in rows if (r["scenario"], r["case_name"]) == ("os-nosdn-nofeature-ha", "Rally")]
    passed = sum(row["criteria"] == "PASS" for row in mine)
    assert (cell["trust"]["passed"], cell["trust"]["known"]) == (passed, 28)
    assert 0 < cell["trust"]["value"] < passed / 28
    assert cell["passed"] is (mine[0]["criteria"] == "PASS")
    options = (await api.call("GET", "/v1/dashboard/options")).json()
    assert (options["pod"], options["installer"]) == (["lf-pod1", "zte-pod2"], ["apex", "fuel", "joid"])
    for query in ("days=0", "days=x", "by=colour"):
        assert (await api.call("GET", f"/v1/dashboard/trend?{query}")).status_code == 422, query
    assert (await api.call("GET", "/v1/dashboard/results?from=2026-01-01T00:00:00")).status_code == 422
    results = (await api.call("GET", "/v1/dashboard/results?limit=5")).json()
    assert (len(results["items"]), results["more"]) == (5, True)
    assert results["items"][0]["run"] == RUN
    monkeypatch.setattr(overview, "MOST_LINES", 2)
    matrix = (await api.call("GET", "/v1/dashboard/matrix")).json()
    assert (len(matrix["scenarios"]), len(matrix["cases"]), matrix["truncated"]) == (2, 2, True)
    monkeypatch.setattr(overview, "SCOPE", 10)
    trend = (await api.call("GET", "/v1/dashboard/trend")).json()
    assert (trend["sum"]["runs"], trend["truncated"]) == (10, True)


async def test_who_gets_the_page_and_its_assets(api: Api) -> None:
    assert (await api.http.get("/dashboard/")).status_code == 401
    moved = await api.http.get("/dashboard/", headers={"Accept": "text/html"})
    assert (moved.status_code, moved.headers["location"]) == (303, "../login?next=dashboard")
    assert (await api.call("GET", "/dashboard")).headers["location"] == "dashboard/"
    assert "script-src 'self'" in (await api.call("GET", "/dashboard/")).headers["content-security-policy"]
    assert (await api.http.get("/dashboard/assets/chart.bundle.js")).status_code == 401
    bundle = await api.call("GET", "/dashboard/assets/chart.bundle.js")
    assert bundle.headers["content-encoding"] == "gzip"
    assert int(bundle.headers["content-length"]) < 300_000
    again = {"If-None-Match": bundle.headers["etag"]}
    assert (await api.call("GET", "/dashboard/assets/chart.bundle.js", headers=again)).status_code == 304
    assert (await api.call("GET", "/dashboard/assets/index.html")).status_code == 404
    api.world.groups.add("mine")
    bound = await api.token("viewer", ["mine"])
    await store(api, history(1))
    assert (await api.call("GET", "/v1/dashboard/trend", token=bound)).json()["sum"]["runs"] == 0
    options = (await api.call("GET", "/v1/dashboard/options", token=bound)).json()
    assert (options["empty"], options["project"]) == (True, [])
    assert (await api.call("GET", "/v1/dashboard/matrix", token=bound)).json()["cells"] == []
