"""The OpenAPI document: what FastAPI generates (3.1), rewritten as 3.0, which the bundled Swagger UI reads."""

from importlib import metadata
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from proctor_api.errors import TEST_API
from proctor_api.routes.guard import OPEN, ROLE, STREAMED

DESCRIPTION = """\
Runs test cases and test plans on a fleet of hosts and shows their logs as they happen.

Press **Authorize** and enter a token, or log in at `/login`. Errors under `/v1` are `application/problem+json` with a
stable `code`: 400 and 422 for a bad request, 401 and 403 for a missing or insufficient token, 404, 409 for a state that
does not allow it, 413, 429, and 503 (with `Retry-After`) when the bus or the database is unavailable. The Test API and
`/v2.1`, the API of the legacy framework, answer errors with `{code, message}`.

Times are ISO 8601 with a time zone. Lists have `items` and `next`: pass `next` as `cursor` to get the following page.

Three websockets send JSON text frames and resume with `?after=<cursor>`; OpenAPI cannot describe them:
`/v1/runs/{run}/logs/tail?after=&step=`, `/v1/runs/{run}/events?after=` and `/v1/events?after=`.
"""
SECTIONS = {
    "runs": "Start test cases and test plans; read runs, their steps, logs and artefacts; cancel, pause, repeat",
    "test plans": "Store plans by name and version; check a plan without running it",
    "schedules": "Run plans at fixed times",
    "agents": "The hosts that steps run on",
    "groups": "Named sets of agents: a token that is bound to groups sees and uses their agents only",
    "pools": "Volumes that are kept ready, and VNFs",
    "Test API": "Pods, projects, test cases, results, deployment results, scenarios and dashboards, compatible with "
    "the Test API of OPNFV. Success is always 200; an error is `{code, message}`",
    "results": "Import and export results of the Test API; results that could not be recorded",
    "dashboard": "The data that the page `/dashboard/` shows",
    "access": "Tokens and sessions",
    "system": "Health, metrics and version of the service",
    "v2.1": "The API of the legacy framework, in its shapes and words (a slave is an agent)",
}
"""The sections of the document, in the order in which Swagger UI shows them."""
PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "An error as of RFC 9457. `code` is stable. More members depend on it, such as `what` and "
    "`name` (404), `limit` in bytes (413), or `errors` with every fault of the request (422)",
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
    """Make the app build the document when it is first asked for."""

    def document() -> dict[str, Any]:
        if not app.openapi_schema:
            app.openapi_schema = make(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def make(app: FastAPI) -> dict[str, Any]:
    """Build the document."""
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
        "session": {"type": "apiKey", "in": "cookie", "name": "proctor_session", "description": "Set by `/login`"},
    }
    document["security"] = [{"token": []}, {"session": []}]
    for path, item in document["paths"].items():
        for operation in item.values():
            _finish(path, operation)
    down: dict[str, Any] = _down(document)
    return down


def _finish(path: str, operation: dict[str, Any]) -> None:
    """Add the required role and the shape of errors to an operation."""
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
        "description": "An error; its `code` says which",
        "content": {media: {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
    }


def _down(node: Any) -> Any:
    """Rewrite what 3.1 and 3.0 spell differently: null types, constants, lists of examples, exclusive limits."""
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
