"""Parameters of a method: checked against its schema, command lines split, hidden values found. Pure."""

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from proctor_common.errors import Fault, fault
from proctor_common.json_walk import parts_of
from proctor_controller.domain.documents.json_schema import BadSchema, dotted, find_faults
from proctor_controller.domain.documents.spelled import is_scalar, written

MAX_PARAMETERS_DEPTH = 100
"""Levels of lists and objects in a method's parameters, and of references followed in its schema."""
MAX_ARGS = 1000
MAX_ARGS_BYTES = 128 * 1024
MAX_ENV = 100
MAX_MARKS = 10_000
MAX_SEEN = 200_000
"""Parts of a schema, each time they are looked at, for one call's parameters."""
MASK = "***"
LEAST_NUMBER = 4
"""A hidden number of at least so many characters is masked in every text."""

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class CheckedParameters:
    """Parameters as the agent gets them. ``secrets``: paths of the values that the schema marks as hidden."""

    parameters: Mapping[str, Any]
    secrets: tuple[Path, ...] = ()
    faults: tuple[Fault, ...] = ()


def check_parameters(
    schema: Mapping[str, Any], parameters: Mapping[str, Any], root: str = "parameters"
) -> CheckedParameters:
    """The parameters with their command lines split, and all their faults, each with its path."""
    faults = list(_find_bad_text(parameters, root))
    if any(each["code"] == "too_deep" for each in faults):
        return CheckedParameters(parameters, (), tuple(faults))
    try:
        faults += find_faults(schema, parameters, root)
    except BadSchema as wrong:
        return CheckedParameters(
            parameters, (), (fault("bad_schema", f"the method's schema cannot be used: {wrong}", root),)
        )
    faults += _check_env(parameters.get("env"), f"{root}.env")
    result: dict[str, Any] = json.loads(json.dumps(parameters))
    secrets: list[Path] = []
    for path, marks in marked(schema, schema, result, ()):
        if marks.get("x-secret"):
            secrets.append(path)
        if marks.get("x-argv"):
            faults += _split_at(result, path, root)
    return CheckedParameters(parameters, (), tuple(faults)) if faults else CheckedParameters(result, tuple(secrets))


def texts_where_wanted(
    schema: Mapping[str, Any], value: Any, words: Mapping[str, str] | None = None, root: str = ""
) -> Any:
    """The value with its numbers, true and false as they were written, where the schema takes text and nothing else.

    ``words``: true and false that are written otherwise, by their path from ``root``.
    """
    return _Wanting(schema, words or {}).texts(schema, value, root, 0)


class _Wanting:
    def __init__(self, whole: Mapping[str, Any], words: Mapping[str, str]) -> None:
        self._whole, self._words = whole, words
        self._seen = 0

    def texts(self, schema: Any, value: Any, path: str, depth: int) -> Any:
        schema = self._next(schema, depth)
        if schema is None:
            return value
        if is_scalar(value):
            return self._words.get(path, written(value)) if self._is_text(schema, value) else value
        for form in ("allOf", "anyOf", "oneOf"):
            for part in schema.get(form) or ():
                value = self.texts(part, value, path, depth + 1)
        if isinstance(value, Mapping):
            known, others = schema.get("properties") or {}, schema.get("additionalProperties")
            return {
                name: self.texts(known.get(name, others), part, dotted([name], path), depth + 1)
                for name, part in value.items()
            }
        if isinstance(value, list):
            items = schema.get("items")
            return [self.texts(items, part, f"{path}[{index}]", depth + 1) for index, part in enumerate(value)]
        return value

    def _next(self, schema: Any, depth: int) -> Mapping[str, Any] | None:
        """The schema itself; None where there is none, or where it refers to itself again and again."""
        self._seen += 1
        schema = _resolve(self._whole, schema)
        is_one = isinstance(schema, Mapping) and depth <= MAX_PARAMETERS_DEPTH and self._seen <= MAX_SEEN
        return schema if is_one else None

    def _is_text(self, schema: Mapping[str, Any], value: Any) -> bool:
        """Whether a scalar that is no text stands where only text can."""
        if isinstance(value, str):
            return False
        kinds = set(self._kinds(schema, 0))
        return "string" in kinds and not kinds & {"number", "integer", "boolean", "any"}

    def _kinds(self, schema: Any, depth: int) -> Iterator[str]:
        schema = self._next(schema, depth)
        if schema is None:
            yield "any"
            return
        kind = schema.get("type")
        forms = [part for form in ("anyOf", "oneOf", "allOf") for part in schema.get(form) or ()]
        if kind is None and not forms:
            values = [*schema.get("enum", ()), *([schema["const"]] if "const" in schema else ())]
            yield "string" if values and all(isinstance(value, str) for value in values) else "any"
        yield from [kind] if isinstance(kind, str) else kind or ()
        for part in forms:
            yield from self._kinds(part, depth + 1)


def _find_bad_text(value: Any, root: str) -> Iterator[Fault]:
    todo: list[tuple[Any, Path]] = [(value, ())]
    while todo:
        part, path = todo.pop()
        if len(path) > MAX_PARAMETERS_DEPTH:
            yield fault("too_deep", f"nested more than {MAX_PARAMETERS_DEPTH} deep", root)
            return
        if isinstance(part, str):
            if "\0" in part:
                yield fault("invalid", "must not hold a NUL character", dotted(path, root))
        elif isinstance(part, Mapping):
            if any("\0" in str(name) for name in part):
                yield fault("invalid", "must not hold a NUL character in a name", dotted(path, root))
                continue
            todo += [(child, (*path, str(name))) for name, child in part.items()]
        elif isinstance(part, list):
            todo += [(child, (*path, index)) for index, child in enumerate(part)]


def _check_env(env: Any, root: str) -> list[Fault]:
    if isinstance(env, Mapping) and len(env) > MAX_ENV:
        return [fault("too_large", f"has {len(env)} names, and {MAX_ENV} are allowed", root)]
    return []


def marked(
    whole: Mapping[str, Any], schema: Any, value: Any, path: Path, depth: int = 0
) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The paths in ``value`` of properties that have Proctor's own marks in the schema, with those marks."""
    schema = _resolve(whole, schema)
    if not isinstance(schema, Mapping) or depth > MAX_PARAMETERS_DEPTH:
        return
    if schema.get("x-secret") or schema.get("x-argv"):
        yield path, schema
        return
    for form in ("allOf", "anyOf", "oneOf"):
        for part in schema.get(form) or ():
            yield from marked(whole, part, value, path, depth + 1)
    if isinstance(value, dict):
        for name, part in (schema.get("properties") or {}).items():
            if name in value:
                yield from marked(whole, part, value[name], (*path, name), depth + 1)
    elif isinstance(value, list) and isinstance(schema.get("items"), Mapping):
        for index, item in enumerate(value[:MAX_MARKS]):
            yield from marked(whole, schema["items"], item, (*path, index), depth + 1)


def _resolve(whole: Mapping[str, Any], schema: Any) -> Any:
    for _ in range(10):
        reference = schema.get("$ref") if isinstance(schema, Mapping) else None
        if not isinstance(reference, str) or not reference.startswith("#"):
            return schema
        target: Any = whole
        for part in filter(None, reference[1:].split("/")):
            name = part.replace("~1", "/").replace("~0", "~")
            target = target.get(name) if isinstance(target, Mapping) else None
        schema = target
    return None


def _split_at(parameters: dict[str, Any], path: Path, root: str) -> list[Fault]:
    """Split the command line at ``path``, in place, and check the words."""
    if not path:
        return []
    holder: Any = parameters
    for part in path[:-1]:
        holder = holder[part]
    where = dotted(path, root)
    try:
        words = split_argv(holder[path[-1]])
    except ValueError as wrong:
        return [fault("invalid", str(wrong), where)]
    if words is None:
        return []
    holder[path[-1]] = words
    return check_argv(words, where)


def split_argv(value: Any) -> list[Any] | None:
    """A string as the words that a POSIX shell makes of it; a list unchanged; None for anything else.

    Raises ValueError for a quote that is not closed.
    """
    if isinstance(value, list):
        return value
    if not isinstance(value, str):
        return None
    try:
        # Only words and quotes: no comments, no expansion.
        return shlex.split(value, comments=False, posix=True)
    except ValueError as wrong:
        raise ValueError(f"cannot be split into words: {str(wrong).lower()}") from wrong


def check_argv(words: list[Any], where: str) -> list[Fault]:
    """Faults of a list of arguments against its limits."""
    if len(words) > MAX_ARGS:
        return [fault("too_large", f"has {len(words)} items, and {MAX_ARGS} are allowed", where)]
    size = sum(len(word.encode("utf-8", "surrogatepass")) for word in words if isinstance(word, str))
    if size > MAX_ARGS_BYTES:
        return [fault("too_large", f"has {size} bytes together, and {MAX_ARGS_BYTES} are allowed", where)]
    return []


def mask(parameters: Mapping[str, Any], secrets: tuple[Path, ...]) -> dict[str, Any]:
    """A copy in which hidden values are ``***``."""
    shown: dict[str, Any] = json.loads(json.dumps(parameters))
    for path in secrets:
        holder: Any = shown
        for part in path[:-1]:
            holder = holder[part]
        holder[path[-1]] = MASK
    return shown


def secret_texts(parameters: Mapping[str, Any], secrets: tuple[Path, ...]) -> list[str]:
    """All texts in the hidden values, to be masked in logs."""
    texts: dict[str, None] = {}
    for path in secrets:
        value: Any = parameters
        for part in path:
            value = value[part]
        texts.update(dict.fromkeys(texts_in(value)))
    return list(texts)


def texts_in(value: Any) -> Iterator[str]:
    """All texts in a hidden value, and numbers if they are long: masking every 1 would hide nothing."""
    for part in parts_of(value):
        if isinstance(part, str):
            if part:
                yield part
        elif isinstance(part, int | float) and not isinstance(part, bool):
            forms = {json.dumps(part), written(part), f"{part:.0f}" if float(part).is_integer() else json.dumps(part)}
            yield from sorted(form for form in forms if len(form) >= LEAST_NUMBER)
