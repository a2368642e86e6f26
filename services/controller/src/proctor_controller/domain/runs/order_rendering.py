"""Renders a start order: templates filled in, checked against the method's schema, hidden values masked. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proctor_controller.domain.documents.method_parameters import MASK, mask, secret_texts, texts_in
from proctor_controller.domain.expressions.evaluate import ExpressionFault, as_text, fill
from proctor_controller.domain.expressions.filling import fill_parameters
from proctor_controller.domain.runs.scope import Scope
from proctor_controller.domain.runs.step_rules import MAX_ARTEFACTS, MAX_PATTERN, Rules
from proctor_controller.domain.runs.verdict import describe

SHOWN_FAULTS = 5
MAX_ENV_TEXT = 128 * 1024


class RenderFault(Exception):
    """The order cannot be made. The text quotes no hidden value."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """The content of an order. ``shown``: the parameters with hidden values masked; ``secrets``: every hidden text;
    ``artefacts``: patterns of files to keep.
    """

    parameters: Mapping[str, Any]
    env: Mapping[str, str]
    shown: Mapping[str, Any]
    secrets: tuple[str, ...] = ()
    artefacts: tuple[str, ...] = ()


def render(
    rules: Rules, parameters: Mapping[str, Any], env: Mapping[str, str], scope: Scope, hidden: Mapping[str, Any]
) -> Rendered:
    """The parameters, environment and artefacts of one step. ``parameters``, ``env``: the literal ones, used if there
    is no template; ``scope``: includes the hidden values, which ``hidden`` lists again to be masked.

    Raises RenderFault: an expression failed, or the result does not fit the method.
    """
    texts = dict.fromkeys(texts_in(hidden))
    where = "with"
    try:
        if rules.parameters is not None:
            checked = fill_parameters(rules.parameters, rules.schema or {"type": "object"}, scope)
            if checked.faults:
                wrong = [f"{fault['path']} {fault['message']}" for fault in checked.faults[:SHOWN_FAULTS]]
                raise RenderFault(_masked("the method does not take what was filled in: " + "; ".join(wrong), texts))
            parameters = checked.parameters
            texts.update(dict.fromkeys(secret_texts(parameters, checked.secrets)))
            shown = _mask_all(mask(parameters, checked.secrets), texts)
        else:
            shown = parameters
        where = "env"
        if rules.env is not None:
            env = {name: _env_text(name, value) for name, value in fill(rules.env, scope).items()}
        where = "artefacts"
        artefacts = _patterns(fill(rules.artefacts, scope))
    except ExpressionFault as fault:
        raise RenderFault(_masked(describe(where, fault), texts)) from None
    return Rendered(parameters, env, shown, tuple(texts), artefacts)


def _patterns(filled: Sequence[Any]) -> tuple[str, ...]:
    """The evaluated patterns; one expression may give several as a list."""
    found: list[str] = []
    for index, value in enumerate(filled):
        for each in value if isinstance(value, list) else [value]:
            if not isinstance(each, str) or not each.strip() or "\0" in each or len(each) > MAX_PATTERN:
                said = f"artefacts[{index}] must come to text of 1 to {MAX_PATTERN} characters, without NUL"
                raise RenderFault(f"{said}, or to a list of such")
            found.append(each)
    if len(found) > MAX_ARTEFACTS:
        raise RenderFault(f"artefacts come to {len(found)} patterns, and {MAX_ARTEFACTS} are allowed")
    return tuple(found)


def _env_text(name: str, value: Any) -> str:
    text = as_text(value)
    if "\0" in text or len(text) > MAX_ENV_TEXT:
        raise RenderFault(f"env.{name} holds a NUL character or has more than {MAX_ENV_TEXT} characters")
    return text


def _mask_all(value: Any, texts: Mapping[str, None]) -> Any:
    """The value with all the texts masked."""
    if isinstance(value, str):
        return _masked(value, texts)
    if isinstance(value, Mapping):
        return {name: _mask_all(part, texts) for name, part in value.items()}
    if isinstance(value, list):
        return [_mask_all(part, texts) for part in value]
    return value


def _masked(text: str, texts: Mapping[str, None]) -> str:
    for each in sorted(texts, key=len, reverse=True):
        text = text.replace(each, MASK)
    return text
