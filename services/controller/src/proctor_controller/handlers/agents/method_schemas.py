"""Checks registrations: limits, and that schemas are valid and refer only to themselves. No I/O."""

import json
from collections.abc import Iterator
from typing import Any

from proctor_common.ids import PLUGIN_NAME
from proctor_common.json_walk import parts_of, placed_parts
from proctor_common.limits import MAX_METHODS, MAX_SCHEMA, MAX_SCHEMA_DEPTH
from proctor_common.messages.events import Registration
from proctor_controller.domain.documents.json_schema import BadSchema, check_schema, compile_pattern
from proctor_controller.domain.hosts.agent import is_instance
from proctor_controller.handlers.calls import is_finite

MAX_REGISTRATION = 768 * 1024
"""All of it as JSON, so that it fits into one answer of a list."""
MAX_PLUGINS = 100
MAX_TARGETS = 200
MAX_TEXT = 4096
MAX_NAME = 63


def find_fault(brought: Registration) -> str:
    """Why the registration is refused, in one sentence; empty if it is valid."""
    if r"\u0000" in brought.model_dump_json():
        return "a text in it has a NUL character"
    if not all(is_finite(spec.parameters) for plugin in brought.plugins.values() for spec in plugin.methods.values()):
        return "a number in a schema is infinite or none at all"
    if not is_instance(brought.instance):
        return "instance: 1 to 64 of A-Z, a-z, 0-9 and hyphen"
    if len(brought.plugins) > MAX_PLUGINS:
        return f"{len(brought.plugins)} plugins are more than {MAX_PLUGINS}"
    if len(brought.targets) > MAX_TARGETS:
        return f"{len(brought.targets)} targets are more than {MAX_TARGETS}"
    if brought.default_target is not None and brought.default_target not in brought.targets:
        return f"the default target is none of the targets: {brought.default_target[:MAX_NAME]!r}"
    for text in (brought.boot_id, brought.version, *brought.targets):
        if len(text) > 200:
            return f"a name is longer than 200 characters: {text[:MAX_NAME]!r}"
    for name, reason in brought.load_errors.items():
        if len(name) > 200 or len(reason) > MAX_TEXT:
            return f"the reason why plugin {name[:MAX_NAME]!r} failed to load is too long"
    return _fault_of_plugins(brought)


def _fault_of_plugins(brought: Registration) -> str:
    for name, plugin in brought.plugins.items():
        if not PLUGIN_NAME.match(name):
            return f"not a name of a plugin: {name[:MAX_NAME]!r}"
        if len(plugin.methods) > MAX_METHODS:
            return f"plugin {name} has {len(plugin.methods)} methods, more than {MAX_METHODS}"
        if len(plugin.description) > MAX_TEXT or len(plugin.version) > 200:
            return f"the description or version of plugin {name} is too long"
        for method, spec in plugin.methods.items():
            if not PLUGIN_NAME.match(method):
                return f"not a name of a method of plugin {name}: {method[:MAX_NAME]!r}"
            if len(spec.description) > MAX_TEXT:
                return f"the description of {name}.{method} is too long"
            fault = fault_of_schema(spec.parameters)
            if fault:
                return f"the schema of {name}.{method} {fault}"
    return ""


def fault_of_schema(schema: dict[str, Any]) -> str:
    """Why it cannot be a method's schema, as the end of a sentence that begins with "the schema"; empty if it can."""
    size = len(json.dumps(schema, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace"))
    if size > MAX_SCHEMA:
        return f"has {size} bytes, more than {MAX_SCHEMA}"
    for path, part in placed_parts(schema):
        if len(path) > MAX_SCHEMA_DEPTH:
            return f"is nested deeper than {MAX_SCHEMA_DEPTH}"
        if isinstance(part, dict) and isinstance(part.get("$id"), str):
            return "has an $id: its references are to stay inside"
    try:
        check_schema(schema)
        for pattern in _patterns(schema):
            compile_pattern(pattern)
    except BadSchema as fault:
        return f"cannot be used: {fault}"
    return ""


def _patterns(schema: dict[str, Any]) -> Iterator[str]:
    """Every regular expression in a valid schema."""
    for part in parts_of(schema):
        if isinstance(part, dict):
            if isinstance(part.get("pattern"), str):
                yield part["pattern"]
            if isinstance(part.get("patternProperties"), dict):
                yield from part["patternProperties"]
