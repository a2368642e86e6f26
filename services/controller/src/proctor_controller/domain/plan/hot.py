"""Heat's maps (``get_param``, ``get_attr``, ``str_replace``, ``list_join``) as templates with expressions. Pure."""

import json
import re
from collections.abc import Mapping
from typing import Any

from proctor_controller.domain.documents.spelled import is_scalar, written
from proctor_controller.domain.expressions.text import split_text
from proctor_controller.domain.plan.model import Path

HOT = frozenset({"get_param", "get_attr", "str_replace", "list_join"})
ATTRIBUTES = frozenset({"result", "outputs", "hosts", "by_host"})
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class BadHot(Exception):
    """The map cannot be compiled. ``path``: the location in the map."""

    def __init__(self, message: str, path: Path = ()) -> None:
        super().__init__(message)
        self.path = path


def is_hot(value: Any) -> bool:
    """Whether a mapping is one of Heat's functions."""
    return isinstance(value, Mapping) and len(value) == 1 and next(iter(value)) in HOT


def compile_hot(value: Mapping[str, Any]) -> str:
    """The equivalent template. Raises BadHot."""
    ((function, given),) = value.items()
    match function:
        case "get_param":
            return f"${{{{ {_get_param(given)} }}}}"
        case "get_attr":
            return f"${{{{ {_get_attr(given)} }}}}"
        case "str_replace":
            return _str_replace(given)
        case _:
            return _list_join(given)


def _get_param(given: Any) -> str:
    keys = given if isinstance(given, list) else [given]
    if not keys or not isinstance(keys[0], str):
        raise BadHot("get_param takes a name, or a list of a name and keys", ("get_param",))
    return "params" + _members(keys, "get_param")


def _get_attr(given: Any) -> str:
    if not isinstance(given, list) or len(given) < 2 or not all(isinstance(part, str) for part in given[:2]):
        raise BadHot("get_attr takes a list: a step, an output (or result, hosts) and keys", ("get_attr",))
    step, attribute, *keys = given
    path = [step, attribute, *keys] if attribute in ATTRIBUTES else [step, "outputs", attribute, *keys]
    return "steps" + _members(path, "get_attr")


def _members(keys: list[Any], function: str) -> str:
    text = ""
    for index, key in enumerate(keys):
        if isinstance(key, str):
            text += f".{key}" if _WORD.match(key) else f"[{json.dumps(key, ensure_ascii=False)}]"
        elif isinstance(key, int) and not isinstance(key, bool):
            text += f"[{key}]"
        else:
            raise BadHot("a key is text or a number", (function, index))
    return text


def _part(value: Any, path: Path) -> str:
    """A value as a part of a text template."""
    if is_hot(value):
        try:
            return compile_hot(value)
        except BadHot as fault:
            raise BadHot(str(fault), (*path, *fault.path)) from None
    if is_scalar(value) or value is None:
        return written(value)
    raise BadHot("must be text, a number or one of Heat's functions", path)


def _str_replace(given: Any) -> str:
    if not isinstance(given, Mapping) or given.keys() != {"template", "params"}:
        raise BadHot("str_replace takes template and params", ("str_replace",))
    template, params = given["template"], given["params"]
    if not isinstance(template, str):
        raise BadHot("must be text", ("str_replace", "template"))
    if not isinstance(params, Mapping) or not params or not all(params):
        raise BadHot("must be a mapping of texts to what replaces them", ("str_replace", "params"))
    parts = {key: _part(value, ("str_replace", "params", key)) for key, value in params.items()}
    longest = sorted(map(re.escape, parts), key=len, reverse=True)
    return re.sub("|".join(longest), lambda found: parts[found[0]], template)


def _list_join(given: Any) -> str:
    if not isinstance(given, list) or len(given) < 2 or not isinstance(given[0], str):
        raise BadHot("list_join takes a delimiter and lists", ("list_join",))
    delimiter, *lists = given
    parts: list[str] = []
    for index, each in enumerate(lists, 1):
        path = ("list_join", index)
        if isinstance(each, list):
            parts += [_part(item, (*path, at)) for at, item in enumerate(each)]
            continue
        source = _whole(_part(each, path))
        if source is None:
            raise BadHot("must be a list, or one expression that comes to a list", path)
        parts.append(f"${{{{ join({source}, {json.dumps(delimiter, ensure_ascii=False)}) }}}}")
    return str(delimiter).join(parts)


def _whole(template: str) -> str | None:
    """The expression, if the template is one as a whole; else None."""
    pieces = split_text(template)
    return pieces[0].source if len(pieces) == 1 else None
