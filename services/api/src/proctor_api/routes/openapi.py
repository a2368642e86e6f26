"""The OpenAPI document: FastAPI's own, put into the words of OpenAPI 3.0 (what the bundled Swagger UI reads)."""

from importlib import metadata
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from proctor_api.errors import TEST_API
from proctor_api.routes.guard import OPEN, ROLE, STREAMED

DESCRIPTION = """\
Runs test cases and test plans on a fleet of hosts and shows their logs as they happen.

Press **Authorize** and give a token, or open `/login`. Faults are `application/problem+json` with a stable `code`;
`/v2.1` keeps the shapes of the framework that Proctor replaces.

Websockets (JSON text frames, resumed with `?after=<cursor>`), which this document cannot describe:
`/v1/runs/{run}/logs/tail?after=&step=`, `/v1/runs/{run}/events?after=`, `/v1/events?after=`.
"""
SECTIONS = {
    "runs": "Test cases and test plans under way, their steps and logs",
    "test plans": "Stored plans",
    "schedules": "Plans by the clock",
    "agents": "Where steps run",
    "groups": "Who sees and uses which agents",
    "pools": "Volumes kept ready, and VNFs",
    "Test API": "Pods, projects, test cases, results, deployments, scenarios and dashboards, for the clients that the "
    "Test API of OPNFV has. Success is always 200; a refusal is `{code, message}`, with a code from 400 to 413",
    "results": "Results in bulk",
    "dashboard": "The figures behind the page `/dashboard/`",
    "access": "Tokens and sessions",
    "system": "How the service is",
    "v2.1": "The routes of the framework that Proctor replaces",
}
"""What operations are sorted by, in the order that readers see."""
PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "RFC 9457, with a stable code and members of its own (what, name, limit, errors …)",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "code": {"type": "string"},
                    "message": {"type": "string"},
                    "path": {"type": "string"},
                    "line": {"type": "integer", "nullable": True},
                    "column": {"type": "integer", "nullable": True},
                },
            },
        },
    },
    "example": {
        "type": "urn:proctor:not_found",
        "title": "Not found",
        "status": 404,
        "detail": "no such plugin: linux_sytem",
        "code": "not_found",
        "what": "plugin",
        "name": "linux_sytem",
    },
}
LEGACY_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["code", "message"],
    "properties": {"code": {"type": "integer"}, "message": {"type": "string"}},
    "example": {"code": 404, "message": "no such host: 10.0.0.9"},
}


def version() -> str:
    """The service's version."""
    return metadata.version("proctor-api")


def install(app: FastAPI) -> None:
    """Have the app make the document at its first use."""

    def document() -> dict[str, Any]:
        if not app.openapi_schema:
            app.openapi_schema = make(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def make(app: FastAPI) -> dict[str, Any]:
    """The document."""
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    document["openapi"] = "3.0.3"
    document["tags"] = [{"name": name, "description": about} for name, about in SECTIONS.items()]
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"] = PROBLEM_SCHEMA
    schemas["LegacyError"] = LEGACY_SCHEMA
    components["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": "A token: `Authorization: Bearer prt_…`"},
        "session": {"type": "apiKey", "in": "cookie", "name": "proctor_session", "description": "From `/login`"},
    }
    document["security"] = [{"token": []}, {"session": []}]
    for path, item in document["paths"].items():
        for operation in item.values():
            _finish(path, operation)
    down: dict[str, Any] = _down(document)
    return down


def _finish(path: str, operation: dict[str, Any]) -> None:
    """Say how an operation fails and which role it asks for."""
    role = operation.pop(ROLE, OPEN)
    for marker in ("x-proctor-creates", STREAMED):
        operation.pop(marker, None)
    if role != OPEN:
        operation["description"] = f"{operation.get('description', '')}\n\nRole: **{role}**.".strip()
    schema, media = (
        ("LegacyError", "application/json")
        if path.startswith(("/v2.1", *TEST_API))
        else ("Problem", "application/problem+json")
    )
    responses = operation.setdefault("responses", {})
    responses.pop("422", None)
    responses["default"] = {
        "description": "A fault; its code says which",
        "content": {media: {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
    }


def _down(node: Any) -> Any:
    """What 3.1 writes in another way than 3.0: null types, constants, lists of examples, exclusive limits."""
    if isinstance(node, list):
        return [_down(member) for member in node]
    if not isinstance(node, dict):
        return node
    out = {key: (value if key == "example" else _down(value)) for key, value in node.items()}
    choices = out.get("anyOf")
    if isinstance(choices, list) and {"type": "null"} in choices:
        rest = [choice for choice in choices if choice != {"type": "null"}]
        del out["anyOf"]
        if len(rest) == 1 and "$ref" not in rest[0]:
            out = {**rest[0], **out}
        elif len(rest) == 1:
            out["allOf"] = rest
        else:
            out["anyOf"] = rest
        out["nullable"] = True
    if "const" in out and "type" in out:
        out["enum"] = [out.pop("const")]
    if isinstance(out.get("examples"), list):
        examples = out.pop("examples")
        if examples:
            out.setdefault("example", examples[0])
    for limit, word in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(out.get(limit), int | float) and not isinstance(out[limit], bool):
            out[word] = out[limit]
            out[limit] = True
    return out
