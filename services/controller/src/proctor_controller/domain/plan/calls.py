"""Checks a step's literal parameters against the schema of its method, before anything runs. Pure."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from proctor_common.errors import Fault, fault
from proctor_controller.domain.documents.json_schema import BadSchema, dotted, find_faults
from proctor_controller.domain.documents.method_parameters import (
    Path,
    check_parameters,
    marked,
    secret_texts,
    texts_where_wanted,
)
from proctor_controller.domain.expressions.filling import BadLine, split_words
from proctor_controller.domain.expressions.text import has_expression
from proctor_controller.domain.plan.model import PlanStep
from proctor_controller.domain.plan.templates import hidden_leaves

OPEN = "${{ null }}"
"""Replaces a value that has a fault: like an expression, its type is not checked."""
LITERAL = "~literal"
"""The name under which secrets written in the document are kept; a plan cannot use it."""


@dataclass(frozen=True, slots=True)
class CheckedCall:
    """A checked call."""

    parameters: Mapping[str, Any]
    """Literal, or a template whose command lines are split."""
    schema: Mapping[str, Any]
    secrets: tuple[Path, ...] = ()
    """Paths of hidden values in literal parameters."""
    kept: Mapping[str, Any] = field(default_factory=dict)
    """Hidden literals taken out of a template, by the name under which it now reads them."""
    texts: tuple[str, ...] = ()
    """Hidden texts written in the document."""
    faults: tuple[Fault, ...] = ()
    outputs: tuple[str, ...] = ()
    """Names of the outputs of the nested plan that is called."""


def check_call(
    step: PlanStep,
    schema: Mapping[str, Any],
    hidden: frozenset[str],
    *,
    literal_from: int = 0,
    words: Mapping[str, str] | None = None,
) -> CheckedCall:
    """The step's checked call. ``hidden``: names of hidden parameters; ``literal_from``: first number of ``kept``."""
    root = dotted([*step.path, "with"])
    step = replace(step, parameters=texts_where_wanted(schema, step.parameters, words, root))
    if step.is_literal:
        checked = check_parameters(schema, step.parameters, root)
        texts = () if checked.faults else tuple(secret_texts(checked.parameters, checked.secrets))
        return CheckedCall(checked.parameters, schema, checked.secrets, texts=texts, faults=checked.faults)
    template, wrong_parts = _split(schema, step.parameters, root)
    try:
        wrong_parts += _faults_of_literals(schema, template, root)
    except BadSchema as bad:
        return CheckedCall(
            {}, schema, faults=(fault("bad_schema", f"the method's schema cannot be used: {bad}", root),)
        )
    secret_paths = [path for path, marks in marked(schema, schema, template, ()) if marks.get("x-secret")]
    for path, name in hidden_leaves(step.parameters, hidden):
        if not any(path[: len(secret)] == secret for secret in secret_paths):
            message = f"{name} is hidden: it goes into env, or into a field that the method marks secret"
            wrong_parts.append(fault("hidden", message, dotted(path, root)))
    template, kept = keep_literals(template, secret_paths, literal_from)
    return CheckedCall(template, schema, kept=kept, texts=tuple(map(str, kept.values())), faults=tuple(wrong_parts))


def _split(schema: Mapping[str, Any], template: Mapping[str, Any], root: str) -> tuple[dict[str, Any], list[Fault]]:
    """The template with its command lines split; a line that cannot be split is a fault, and OPEN replaces it."""
    wrong: list[Fault] = []
    while True:
        try:
            return split_words(schema, template), wrong
        except BadLine as bad:
            wrong.append(fault("invalid", str(bad), dotted(bad.path, root)))
            template = _put(template, bad.path, OPEN)


def _put(template: Any, path: Path, value: Any) -> Any:
    """A copy of the template with another value at a path."""
    if not path:
        return value
    changed: Any = dict(template) if isinstance(template, Mapping) else list(template)
    changed[path[0]] = _put(template[path[0]], path[1:], value)
    return changed


def _faults_of_literals(schema: Mapping[str, Any], template: Mapping[str, Any], root: str) -> list[Fault]:
    """Faults of the parts without expressions; the others are checked when they are filled in."""
    open_paths = {dotted(path, root) for path in _expression_paths(template, ())}
    above = {part for path in open_paths for part in _above(path)}
    found: list[Fault] = []
    for each in find_faults(schema, template, root):
        path = each["path"]
        if path in open_paths or any(path.startswith((f"{start}.", f"{start}[")) for start in open_paths):
            continue
        if path not in above or each["code"] in {"missing", "unknown_member"}:
            found.append(each)
    return found


def _expression_paths(template: Any, path: Path) -> Iterator[Path]:
    if isinstance(template, str):
        if has_expression(template):
            yield path
    elif isinstance(template, Mapping):
        for name, part in template.items():
            yield from _expression_paths(part, (*path, name))
    elif isinstance(template, list):
        for index, part in enumerate(template):
            yield from _expression_paths(part, (*path, index))


def _above(path: str) -> Iterator[str]:
    while (cut := max(path.rfind("."), path.rfind("["))) > 0:
        path = path[:cut]
        yield path


def keep_literals(
    template: Mapping[str, Any], secret: Iterable[Path], first: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The template, which is stored unencrypted, without the texts at secret paths. It reads them under names numbered
    from ``first`` on. Also returns the texts by these names.
    """
    kept: dict[str, Any] = {}
    changed: dict[str, Any] = copy.deepcopy(dict(template))
    for path in secret:
        if path and path[0] in changed:
            _keep_literals(changed, path, kept, first)
    return changed, kept


def _keep_literals(template: Any, path: Path, kept: dict[str, Any], first: int) -> None:
    """Take literal texts at ``path`` out of the template."""
    holder: Any = template
    for part in path[:-1]:
        holder = holder[part]
    value = holder[path[-1]] if path else None
    is_text = isinstance(value, str) and value != "" and not has_expression(value)
    if is_text or (isinstance(value, int | float) and not isinstance(value, bool)):
        name = f"{LITERAL}{first + len(kept)}"
        kept[name] = value.replace("$${{", "${{") if isinstance(value, str) else value
        holder[path[-1]] = f'${{{{ secrets["{name}"] }}}}'
    elif isinstance(value, dict | list):
        for part in list(value) if isinstance(value, dict) else range(len(value)):
            _keep_literals(value, (part,), kept, first)
