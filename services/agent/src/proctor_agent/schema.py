"""A method's parameters: a pydantic model made of its signature, and the JSON Schema that is published. No I/O."""

import inspect
import json
from collections.abc import Callable
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from proctor_common.json_walk import parts_of, placed_parts
from proctor_common.limits import MAX_SCHEMA, MAX_SCHEMA_DEPTH

MARKERS = ("x-secret", "x-argv")
"""Members of the schema that have a meaning for Proctor (messages.events.MethodSpec)."""


class UnpublishableMethod(Exception):
    """A method whose parameters cannot be published; the message says why in one line."""


def parameters_of(function: Callable[..., Any], name: str) -> tuple[type[BaseModel], bool]:
    """The model of a method's parameters, and whether the method takes the model itself. Raises UnpublishableMethod."""
    parameters = list(inspect.signature(function).parameters.values())[2:]
    try:
        hints = get_type_hints(function, include_extras=True)
    except Exception as fault:
        raise UnpublishableMethod(f"its annotations cannot be read: {fault}") from fault
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise UnpublishableMethod(f"parameter {parameter.name} must be a named one")
        if parameter.name not in hints:
            raise UnpublishableMethod(f"parameter {parameter.name} has no type")
    if len(parameters) == 1:
        only = hints[parameters[0].name]
        if isinstance(only, type) and issubclass(only, BaseModel):
            return _strict(only), True
    fields: dict[str, Any] = {
        parameter.name: (hints[parameter.name], ... if parameter.default is parameter.empty else parameter.default)
        for parameter in parameters
    }
    config = ConfigDict(extra="forbid", hide_input_in_errors=True)
    return create_model(name, __config__=config, **fields), False


def _strict(model: type[BaseModel]) -> type[BaseModel]:
    """The author's model, refusing unknown members and keeping values out of its errors."""
    config = ConfigDict(extra="forbid", hide_input_in_errors=True)
    return type(model.__name__, (model,), {"model_config": config, "__module__": model.__module__})


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema of the parameters. Raises UnpublishableMethod: over the limits, or a reference to the outside."""
    schema = model.model_json_schema()
    schema.pop("title", None)
    size = len(json.dumps(schema).encode())
    if size > MAX_SCHEMA:
        raise UnpublishableMethod(f"its schema has {size} bytes, more than {MAX_SCHEMA}")
    _check(schema)
    _lift_markers(schema)
    return schema


def _lift_markers(schema: dict[str, Any]) -> None:
    """Put the markers where the controller looks for them: at the parameter itself, not inside ``X | None``."""
    for name, part in schema.get("properties", {}).items():
        for marker in MARKERS:
            if _has(part, marker):
                part[marker] = True
                if "default" in part and marker == "x-secret" and part["default"]:
                    raise UnpublishableMethod(f"parameter {name} is secret, so its default cannot be published")
    for name, part in schema.get("$defs", {}).items():
        if _has(part, "x-secret"):
            raise UnpublishableMethod(f"a secret inside {name} would not be sealed: make it a parameter of its own")


def _has(part: object, marker: str) -> bool:
    return any(isinstance(inner, dict) and inner.get(marker) is True for inner in parts_of(part))


def _check(schema: dict[str, Any]) -> None:
    for path, part in placed_parts(schema):
        if len(path) > MAX_SCHEMA_DEPTH:
            raise UnpublishableMethod(f"its schema is more than {MAX_SCHEMA_DEPTH} levels deep")
        reference = part.get("$ref") if isinstance(part, dict) else None
        if isinstance(reference, str) and not reference.startswith("#"):
            raise UnpublishableMethod(f"its schema refers to the outside: {reference[:100]}")


def faults_of(fault: ValidationError) -> str:
    """All faults in one line, each with its location, none with a value."""
    found = []
    for error in fault.errors(include_input=False, include_url=False):
        where = ".".join(str(part) for part in error["loc"]) or "parameters"
        if error["type"] == "extra_forbidden":
            found.append(f"{where}: there is no such parameter")
        elif error["type"] == "missing":
            found.append(f"{where}: is required")
        else:
            found.append(f"{where}: {error['msg'].removeprefix('Value error, ')[:200]}")
    more = f"; and {len(found) - 20} more" if len(found) > 20 else ""
    return "; ".join(found[:20]) + more
