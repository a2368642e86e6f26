"""The OpenAPI document of the Test API: a section of its own, every order with an example."""

from fastapi import FastAPI

from proctor_api.routes import ALL_ROUTERS, openapi


def test_every_section_is_described_and_every_order_of_the_test_api_has_an_example() -> None:
    app = FastAPI(title="Proctor", version="1")
    app.router.routes += [route for router in ALL_ROUTERS for route in router.routes]
    document = openapi.make(app)
    operations = [(path, way, one) for path, item in document["paths"].items() for way, one in item.items()]
    used = {tag for _, _, one in operations for tag in one["tags"]}
    assert used == {tag["name"] for tag in document["tags"]}
    test_api = [operation for operation in operations if operation[2]["tags"] == ["Test API"]]
    assert {path.split("/")[3] for path, _, _ in test_api if path.startswith("/api/v1/")} == {
        "pods",
        "projects",
        "results",
        "deployresults",
        "scenarios",
    }
    for path, way, one in test_api:
        assert one["summary"], path
        if way in {"post", "put"}:
            assert "example" in one["requestBody"]["content"]["application/json"]["schema"], (way, path)
        if way == "get":
            assert "example" in one["responses"]["200"]["content"]["application/json"]["schema"], path


def test_every_order_of_the_test_api_names_the_codes_that_it_refuses_with() -> None:
    app = FastAPI(title="Proctor", version="1")
    app.router.routes += [route for router in ALL_ROUTERS for route in router.routes]
    least = {"get": {401}, "post": {400, 401, 403, 413}, "put": {400, 401, 403, 404, 413}, "delete": {401, 403, 404}}
    for path, item in openapi.make(app)["paths"].items():
        for way, one in item.items():
            if one["tags"] != ["Test API"]:
                continue
            refused = {int(code): shown for code, shown in one["responses"].items() if code not in {"200", "default"}}
            assert least[way] | ({404} if "{" in path and way == "get" and "cases" not in path else set()) <= {*refused}
            for code, shown in refused.items():
                content = shown["content"]["application/json"]
                assert shown["description"], (way, path)
                assert content["schema"] == {"$ref": "#/components/schemas/LegacyError"}
                assert content["example"]["code"] == code
                assert content["example"]["message"]
            parts = ("/scenarios", "/projects", "/versions", "/installers")
            adds = path.startswith("/api/v1/scenarios") and path.endswith(parts) and way in {"post", "put"}
            assert (409 in refused) == adds, (way, path)
