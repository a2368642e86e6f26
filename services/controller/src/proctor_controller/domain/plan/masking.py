"""The text of a plan as it is stored, with hidden values masked. Pure."""

import json
from collections.abc import Sequence
from typing import Any

from proctor_controller.domain.documents.method_parameters import MASK
from proctor_controller.domain.documents.spelled import written
from proctor_controller.domain.documents.tree import BadText
from proctor_controller.domain.documents.yaml_text import read_text


def mask_text(text: str, value: Any, secrets: Sequence[str]) -> str:
    """The text with ``***`` for each hidden text; ``value``: what the text was parsed to.

    If a hidden text is written in another way than it reads (escaped, folded), the result is the masked value as JSON.
    """
    if not secrets:
        return text
    for mask in (MASK, f'"{MASK}"'):
        # Unquoted stars are an alias in YAML: there they need quotes.
        masked = _mask(text, secrets, mask)
        try:
            if not _holds(read_text(masked).value, secrets):
                return masked
        except BadText:
            continue
    return json.dumps(_mask_value(value, secrets), ensure_ascii=False)


def _mask(text: str, secrets: Sequence[str], mask: str = MASK) -> str:
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, mask)
    return text


def _mask_value(value: Any, secrets: Sequence[str]) -> Any:
    if isinstance(value, str):
        return _mask(value, secrets)
    if isinstance(value, dict):
        return {_mask(name, secrets): _mask_value(part, secrets) for name, part in value.items()}
    if isinstance(value, list):
        return [_mask_value(part, secrets) for part in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return MASK if {str(value), written(value)} & set(secrets) else value
    return value


def _holds(value: Any, secrets: Sequence[str]) -> bool:
    return bool(value != _mask_value(value, secrets))
