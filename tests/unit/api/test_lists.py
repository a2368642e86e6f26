"""Every list of pages is read to its end in one way: ``next`` of a page is the ``cursor`` of the following one."""

from fastapi import FastAPI

from proctor_api.routes import ALL_ROUTERS, openapi


def test_each_list_with_a_next_page_takes_a_cursor() -> None:
    app = FastAPI(title="Proctor", version="1")
    app.router.routes += [route for router in ALL_ROUTERS for route in router.routes]
    document = openapi.make(app)
    pages = {
        name for name, schema in document["components"]["schemas"].items() if "next" in schema.get("properties", {})
    }
    lists = {}
    for path, item in document["paths"].items():
        answer = item.get("get", {}).get("responses", {}).get("200", {}).get("content", {}).get("application/json", {})
        if answer.get("schema", {}).get("$ref", "").rpartition("/")[2] in pages:
            lists[path] = {parameter["name"] for parameter in item["get"].get("parameters", [])}
    assert {"/v1/runs", "/v1/runs/{run}/events"} <= lists.keys()
    assert {path for path, names in lists.items() if "cursor" not in names} == {"/v1/pools"}, "all pools are one page"
