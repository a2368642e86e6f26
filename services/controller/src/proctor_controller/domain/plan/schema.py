"""The JSON Schema of test plans, made from the reader's own tables: for editors and programs that write plans. Names
that must exist, circles and types of parameters are left to validation. Pure.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from proctor_common.ids import GROUP_NAME, HOST_NAME, PLAN_NAME, PLUGIN_NAME, STEP_NAME
from proctor_common.limits import MAX_LABELS
from proctor_common.states import Role as TokenRole
from proctor_controller.domain.documents.method_parameters import MAX_ENV
from proctor_controller.domain.hosts.requirements import Rollback, WhenFull
from proctor_controller.domain.plan import document, matrix, plan_parameters, resources, steps, verdict
from proctor_controller.domain.runs.step import Condition, RetryOn
from proctor_controller.domain.runs.step_rules import MAX_ARTEFACTS, MAX_PATTERN

DRAFT = "https://json-schema.org/draft/2020-12/schema"
_SCALAR = ["string", "number", "boolean"]
"""What stands where text is wanted: a number, true or false as it is written."""
_TEMPLATE = {"type": "string", "pattern": r"\$\{\{"}
_RUNS_ON = r"^\s*((each\s+)?[A-Za-z_][A-Za-z0-9_-]{0,62}|[A-Za-z_][A-Za-z0-9_-]{0,62}\[[0-9]{1,4}\])\s*$"
Schema = dict[str, Any]


def plan_schema() -> Schema:
    """The schema of a whole plan."""
    properties = _of_plan()
    return {
        "$schema": DRAFT,
        "title": "Proctor test plan",
        "description": "What to run, in which order, on which hosts; docs/test-plans.md teaches it.",
        "type": "object",
        "properties": {name: properties[name] for name in document.MEMBERS},
        "required": ["testplan_version", "name", "steps"],
        "additionalProperties": False,
        "$defs": {**_of_values(), **_of_resources(), **_of_steps()},
    }


def _object(members: Mapping[str, Schema], text: str, required: Iterable[str] = ()) -> Schema:
    made: Schema = {"description": text, "type": "object", "properties": dict(members), "additionalProperties": False}
    return {**made, "required": list(required)} if required else made


def _named(of: Schema, text: str) -> Schema:
    names = {"pattern": _pattern(STEP_NAME)}
    return {"description": text, "type": "object", "propertyNames": names, "additionalProperties": of}


def _pattern(compiled: Any) -> str:
    """The pattern with ``$`` instead of Python's ``\\Z``."""
    return str(compiled.pattern).replace(r"\Z", "$")


def _ref(name: str, text: str = "") -> Schema:
    return {"$ref": f"#/$defs/{name}", "description": text} if text else {"$ref": f"#/$defs/{name}"}


def _or_template(schema: Schema) -> Schema:
    """The value, or an expression for it."""
    text = schema.pop("description", None)
    either: Schema = {"anyOf": [schema, _ref("early")]}
    return {"description": text, **either} if text else either


def _words(words: Iterable[str], text: str) -> Schema:
    return {"description": text, "enum": [str(word) for word in words]}


def _count(most: int, text: str) -> Schema:
    return _or_template({"description": text, "type": "integer", "minimum": 1, "maximum": most})


def _text(text: str, pattern: str | None = None) -> Schema:
    made: Schema = {"description": text, "type": _SCALAR}
    return made if pattern is None else _or_template({**made, "pattern": pattern})


def _of_plan() -> dict[str, Schema]:
    return {
        "testplan_version": _words(document.VERSIONS, "The version of the language"),
        "name": {"description": "The plan's name", "type": _SCALAR, "pattern": _pattern(PLAN_NAME)},
        "description": _text("What the plan is for"),
        "parameters": _named(_ref("parameter"), "What a run may be given"),
        "hosts": _named(_ref("role"), "Roles: hosts that are leased, all or none, before the first step"),
        "volumes": _named(_ref("volume"), "Volumes that are claimed with the hosts"),
        "concurrency": _object(
            {
                "group": _or_template(
                    {
                        "description": "Runs with the same text count together",
                        "type": _SCALAR,
                        "minLength": 1,
                    }
                ),
                "max": _count(10_000, "How many may be under way at once"),
                "when_full": _words(WhenFull, "What becomes of one more"),
            },
            "How many runs of a kind there may be at once",
            ["group"],
        ),
        "timeouts": _object(
            {
                "run": _ref("duration", "From the start of the run to its end"),
                "queue": _ref("duration", "From its creation to its start"),
                "cleanup": _ref("duration", "For all rollbacks together"),
            },
            "Limits of the whole run",
        ),
        "defaults": _object(
            {
                "timeout": _ref("duration"),
                "grace": _ref("duration"),
                "target": _or_template({"description": "One of the agent's targets", "type": _SCALAR}),
            },
            "What steps have that do not say otherwise",
        ),
        "steps": {
            **_named(_ref("step"), "The steps by their names"),
            "minProperties": 1,
            "maxProperties": document.MAX_STEPS,
        },
        "on_failure": _list(_ref("cleanup"), "Run one after the other when the run has failed"),
        "always": _list(_ref("cleanup"), "Run one after the other at the end, whatever it is"),
        "rollback": _words(Rollback, "When the rollbacks of passed steps run, the last step's first"),
        "hold_on_failure": _object(
            {"hosts": {**_list({"type": "string"}, "Roles"), "minItems": 1}, "for": _ref("duration")},
            "After a failure the hosts stay with the run for a while",
            ["hosts", "for"],
        ),
        "outputs": _named(_ref("template"), "What the run comes to"),
        "secrets": _ref("secrets"),
        "webhook": _object(
            {
                "url": _text("The address that is called", "^https?://[^/]"),
                "secret": _or_template({"description": "Signs the call: an expression that names it", "type": _SCALAR}),
            },
            "The address that is called when the run has ended",
            ["url"],
        ),
    }


def _list(of: Schema, text: str) -> Schema:
    return {"description": text, "type": "array", "items": of}


def _of_values() -> dict[str, Schema]:
    return {
        "early": {"description": "An expression of parameters", "anyOf": [_TEMPLATE, _ref("hot")]},
        "hot": {
            "description": "One of Heat's functions",
            "type": "object",
            "minProperties": 1,
            "maxProperties": 1,
            "properties": {
                "get_param": {"description": "A parameter, or a list of it and keys", "type": ["string", "array"]},
                "get_attr": {"description": "[step, output, key…]", "type": "array", "minItems": 2},
                "str_replace": {"type": "object", "required": ["template", "params"]},
                "list_join": {"description": "[delimiter, list…]", "type": "array", "minItems": 2},
            },
            "additionalProperties": False,
        },
        "template": {"description": "Any value; text in it may hold ${{ expressions }}"},
        "expression": {
            "description": "A CEL expression, with or without ${{ }}",
            "type": ["string", "boolean", "object"],
        },
        "duration": {
            "description": "A number of seconds, or one with ms, s, m, h or d",
            "anyOf": [
                {"type": "number", "minimum": 0},
                {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)?$"},
                _ref("early"),
            ],
        },
    }


def _of_resources() -> dict[str, Schema]:
    return {
        "labels": {
            "type": "object",
            "minProperties": 1,
            "maxProperties": MAX_LABELS,
            "additionalProperties": _or_template({"type": _SCALAR}),
        },
        "secrets": _named(
            {"type": _SCALAR, "pattern": _pattern(resources.SECRET_NAME)},
            "Stored secrets by the name they have here, read as ${{ secrets.NAME }} in env and secret fields",
        ),
        "parameter": _parameter(),
        "env": {
            "type": "object",
            "maxProperties": MAX_ENV,
            "propertyNames": {"pattern": _pattern(steps.ENV_NAME)},
            "additionalProperties": {"anyOf": [{"type": _SCALAR}, _ref("hot")]},
        },
        "role": {
            **_object(
                {
                    "group": _text("Only hosts of this group", _pattern(GROUP_NAME)),
                    "labels": _ref("labels", "Only hosts with these labels"),
                    "host": _text("This one host", _pattern(HOST_NAME)),
                    "plugin": _text("Only hosts that have this plugin", _pattern(PLUGIN_NAME)),
                    "count": _count(resources.MAX_HOSTS, "How many"),
                    "exclusive": _or_template({"description": "No other run uses them meanwhile", "type": "boolean"}),
                },
                "Hosts that the run leases",
            ),
            "anyOf": [{"required": [name]} for name in ("group", "labels", "host", "plugin")],
        },
        "volume": _object(
            {
                "type": _or_template({"description": "One of the pool's types", "type": _SCALAR}),
                "count": _count(resources.MAX_HOSTS, "How many"),
                "size_gb": _count(64 * 1024, "At least so large"),
                "pool": _words(("prefer", "require", "bypass"), "Whether a spare of the pool is taken"),
                "on_end": _words(("delete", "retain"), "What becomes of them when the run has ended"),
            },
            "Volumes that the run claims",
            ["type"],
        ),
    }


def _of_steps() -> dict[str, Schema]:
    return {
        "retry": _object(
            {
                "attempts": _count(verdict.MAX_ATTEMPTS, "All of them, the first one too"),
                "delay": _ref("duration", "Before the second attempt"),
                "backoff": _or_template({"type": "number", "minimum": 1, "maximum": 100}),
                "max_delay": _ref("duration"),
                "on": _list({"enum": [word.value for word in RetryOn]}, "After which ends"),
            },
            "Further attempts",
        ),
        "step": {
            "anyOf": [_step(steps.METHOD, "uses", "runs_on"), _step(steps.GATE, "gate"), _step(steps.PLAN, "plan")]
        },
        "rollback": _step(steps.ROLLBACK, "uses"),
        "cleanup": _step(steps.CLEANUP, "uses", "runs_on"),
    }


def _parameter() -> Schema:
    number: Schema = {"type": "number"}
    size: Schema = {"type": "number", "minimum": 0}
    limits: dict[str, Schema] = {
        "length": {**_object({"min": size, "max": size}, "Of text, a list or a map"), "minProperties": 1},
        "range": {**_object({"min": number, "max": number}, "Of a number"), "minProperties": 1},
        "modulo": _object(
            {"step": {"type": "integer", "not": {"const": 0}}, "offset": number}, "Of a number", ["step"]
        ),
        "allowed_values": {"type": "array", "minItems": 1},
        "allowed_pattern": {"description": "A regular expression for the whole text", "type": _SCALAR},
    }
    constraint = _object({**limits, "description": _text("What is asked for, in words")}, "One limit")
    constraint["oneOf"] = [{"required": [name]} for name in limits]
    declared = _object(
        {
            "type": _words(plan_parameters.TYPES, "Text given for it is read as this type"),
            "label": _text("A short name for people"),
            "description": _text("What it is for"),
            "default": {"description": "Its value where none is given; without one it has to be given"},
            "hidden": {"description": "Redacted everywhere, and stored sealed", "type": "boolean"},
            "constraints": _list(constraint, "Limits of its value"),
        },
        "A parameter",
        ["type"],
    )
    # Text is read as the type; null stands for no value.
    taken = {"number": ["number"], "boolean": ["boolean"], "list": ["array"], "json": ["object", "array"]}
    taken["string"] = _SCALAR[1:]
    of_type = [
        {
            "if": {"required": ["type"], "properties": {"type": {"const": name}}},
            "then": {"properties": {"default": {"type": ["string", "null", *types]}}},
        }
        for name, types in taken.items()
    ]
    return {**declared, "allOf": of_type}


def _step(members: Iterable[str], *required: str) -> Schema:
    known = _members()
    return _object({name: known[name] for name in members}, "A step", required)


def _members() -> dict[str, Schema]:
    condition = [each.value for each in Condition]
    names: Schema = {"type": "string", "pattern": _pattern(STEP_NAME)}
    place: Schema = {
        "type": "object",
        "properties": {
            "host": _text("This host", _pattern(HOST_NAME)),
            "group": _text("Any host of this group", _pattern(GROUP_NAME)),
            "labels": _ref("labels", "Any host with these labels"),
        },
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    }
    return {
        "uses": {"description": "plugin.method", "type": "string", "pattern": r"^[A-Za-z_]\w*\.[A-Za-z_]\w*$"},
        "plan": _text("A stored plan: name, or name@version", _pattern(steps.CHILD)),
        "gate": {
            "description": "A person decides",
            "type": ["object", "null"],
            "properties": {
                "roles": {**_list({"enum": [role.value for role in TokenRole]}, "Whose tokens may"), "minItems": 1},
                "timeout": _ref("duration", "After it the gate counts as refused"),
            },
            "additionalProperties": False,
        },
        "with": {
            "description": "The method's parameters; shell text holds no expressions: its values come in args and env",
            "type": "object",
            "if": {"required": ["shell"], "properties": {"shell": {"const": True}}},
            "then": {"properties": {"command": {"not": {"type": "string", "pattern": r"(^|[^$])\$\{\{"}}}},
        },
        "runs_on": {
            "description": "A role, role[i], each role; or a place",
            "anyOf": [{"type": "string", "pattern": _RUNS_ON}, place, _ref("early")],
        },
        "depends_on": {
            "description": "Steps that come before: a list (they succeeded), or each with its condition",
            "anyOf": [
                {"type": "array", "items": names},
                {"type": "object", "propertyNames": names, "additionalProperties": {"enum": condition}},
            ],
        },
        **_around(),
        **_verdict(),
    }


def _around() -> dict[str, Schema]:
    return {
        "if": _ref("expression", "Where false, the step is skipped"),
        "matrix": {
            "description": "One instance for each combination of these lists",
            "type": "object",
            "maxProperties": matrix.MAX_KEYS + 2,
            "properties": {
                "exclude": _or_template(_list({"type": "object"}, "Combinations that are left out")),
                "include": _or_template(_list({"type": "object"}, "Combinations beside them")),
            },
            "additionalProperties": _or_template({"type": "array"}),
        },
        "strategy": _object(
            {
                "max_parallel": _count(10_000, "Most instances at once"),
                "fail_fast": _or_template({"description": "One that fails stops the others", "type": "boolean"}),
            },
            "How the instances run",
        ),
        "timeout": _ref("duration", "Of one attempt"),
        "grace": _ref("duration", "Between asking it to end and killing it"),
        "retry": _ref("retry"),
        "idempotent": {"description": "A lost attempt may run again", "type": "boolean"},
        "env": _ref("env", "Environment of the command"),
        "target": _or_template({"description": "One of the agent's targets", "type": _SCALAR}),
        "secrets": _ref("secrets"),
    }


def _verdict() -> dict[str, Schema]:
    text: Schema = {"type": _SCALAR}
    words: Schema = {"type": [*_SCALAR, "object"]}
    flag: Schema = {"anyOf": [{"type": "boolean"}, {"$ref": "#/$defs/early"}]}
    return {
        "outputs": _named(_ref("template"), "What others read as steps.NAME.outputs"),
        "rollback": _ref("rollback", "Undoes the step, on the host where it ran"),
        "failed_when": _ref("expression", "The step failed where this is true, and passed where not"),
        "until": _ref("expression", "The attempt counts as failed until this is true"),
        "expect": _object(
            {"error": {"type": "object", "minProperties": 1, "properties": dict.fromkeys(("kind", "contains"), text)}},
            "The step passes only if it fails so",
            ["error"],
        ),
        "record": _object(
            {**dict.fromkeys(verdict.RECORD, words), "details": _ref("template"), "declare": flag},
            "Kept as a result of the Test API",
            ["project", "case"],
        ),
        "artefacts": {
            **_list(
                {"anyOf": [{**text, "minLength": 1, "maxLength": MAX_PATTERN}, _ref("hot")]},
                "Patterns of files to keep",
            ),
            "maxItems": MAX_ARTEFACTS,
        },
    }
