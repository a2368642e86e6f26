"""The pages in a real browser: log in, read the documentation, press Execute. Needs an installed Chromium."""

import shutil
from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from support.api_world import FIRST_TOKEN, Api


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
    """A page that fails the test when its policy is broken or a request goes elsewhere."""
    opened = await browser.new_page(base_url=api.url)
    faults: list[str] = []
    opened.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("request", lambda r: faults.append(r.url) if not r.url.startswith((api.url, "data:")) else None)
    yield opened
    assert [fault for fault in faults if "401" not in fault] == []


async def test_log_in_and_try_an_example_out(page: Page, api: Api) -> None:
    await page.goto("/login")
    await page.get_by_label("Token").fill("wrong")
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("alert")).to_contain_text("not known")
    await page.get_by_label("Token").fill(FIRST_TOKEN)
    await page.get_by_role("button", name="Log in").click()
    await page.wait_for_url("**/docs")
    operation = page.locator("#operations-runs-submit_case_v1_testcases_post")
    await operation.locator(".opblock-summary").click()
    await operation.get_by_role("button", name="Try it out").click()
    await operation.get_by_role("button", name="Execute").click()
    await expect(operation.locator(".live-responses-table tbody .response-col_status").first).to_contain_text("202")
    assert api.world.asked["case.submit"][-1].body["host"] == "local-1"
    for name in ("list_runs_v1_runs_get", "list_steps_v1_runs__run__steps_get", "get_logs_v1_runs__run__logs_get"):
        operation = page.locator(f"#operations-runs-{name}")
        await operation.locator(".opblock-summary").click()
        await operation.get_by_role("button", name="Try it out").click()
        await operation.get_by_role("button", name="Execute").click()
        await expect(operation.locator(".live-responses-table tbody .response-col_status").first).to_contain_text("200")


async def test_writing_cannot_be_tried_out_where_the_setting_says_so(browser: Browser, start_api: Any) -> None:
    api: Api = await start_api(tryout="read", anonymous="viewer")
    page = await browser.new_page(base_url=api.url)
    await page.goto("/docs")
    reading = page.locator("[id='operations-Test_API-list_pods_api_v1_pods_get']")
    await reading.locator(".opblock-summary").click()
    await reading.get_by_role("button", name="Try it out").click()
    await reading.get_by_role("button", name="Execute").click()
    await expect(reading.locator(".live-responses-table tbody .response-col_status").first).to_contain_text("200")
    writing = page.locator("[id='operations-Test_API-add_pod_api_v1_pods_post']")
    await writing.locator(".opblock-summary").click()
    await expect(writing.get_by_text("pod_foo").first).to_be_visible()
    await expect(writing.get_by_role("button", name="Try it out")).to_have_count(0)


async def test_pages_below_a_path_ask_for_nothing_beside_it(browser: Browser, start_api: Any) -> None:
    api: Api = await start_api(root_path="/test")
    page = await browser.new_page(base_url=api.url)
    beside: list[str] = []
    page.on("request", lambda r: beside.append(r.url) if not r.url.startswith((f"{api.url}/test/", "data:")) else None)
    await page.goto("/test/login")
    await page.get_by_label("Token").fill(FIRST_TOKEN)
    await page.get_by_role("button", name="Log in").click()
    await page.wait_for_url("**/test/docs")
    reading = page.locator("[id='operations-Test_API-list_pods_api_v1_pods_get']")
    await reading.locator(".opblock-summary").click()
    await reading.get_by_role("button", name="Try it out").click()
    await reading.get_by_role("button", name="Execute").click()
    await expect(reading.locator(".live-responses-table tbody .response-col_status").first).to_contain_text("200")
    await page.goto("/test/dashboard/")
    await expect(page.get_by_text("Declare pod, project and test case first")).to_be_visible()
    assert beside == []
