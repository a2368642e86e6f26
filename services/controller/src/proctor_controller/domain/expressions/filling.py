"""A method's parameters filled in from their template, for an order. Pure."""

from collections.abc import Mapping
from typing import Any

from proctor_controller.domain.documents.method_parameters import (
    CheckedParameters,
    Path,
    check_parameters,
    marked,
    split_argv,
    texts_where_wanted,
)
from proctor_controller.domain.expressions.evaluate import Scope, as_text, evaluate, fill, fill_text
from proctor_controller.domain.expressions.text import ESCAPED, OPENING, split_text


class BadLine(ValueError):
    """A command line cannot be split into words."""

    def __init__(self, reason: str, path: Path) -> None:
        super().__init__(reason)
        self.path = path


def fill_parameters(template: Mapping[str, Any], schema: Mapping[str, Any], scope: Scope) -> CheckedParameters:
    """The parameters, checked against the method's schema like those of a test case.

    In the template a command line is a list of words (``split_words``): an expression's value becomes part of its word,
    whatever blanks and quotes it contains. Raises ExpressionFault.
    """
    filled: dict[str, Any] = fill(template, scope)
    lines = {path: _fill_words(_at(template, path), scope) for path in _argv_paths(schema, template)}
    for path, words in lines.items():
        _put(filled, path, words)
    for path in _argv_paths(schema, filled):
        value = _at(filled, path)
        if path not in lines and isinstance(value, str):
            # The whole text is an expression's value: one word, never a command line.
            _put(filled, path, [value])
    return check_parameters(schema, texts_where_wanted(schema, filled), "with")


def _fill_words(words: Any, scope: Scope) -> Any:
    if not isinstance(words, list):
        return fill(words, scope)
    found: list[Any] = []
    for word in words:
        value = _fill_word(word, scope)
        found += value if isinstance(value, list) else [value]
    return found


def _fill_word(word: Any, scope: Scope) -> Any:
    """The word; several if it is one whole expression whose value is a list."""
    if not isinstance(word, str) or OPENING not in word:
        return word
    pieces = split_text(word)
    if len(pieces) == 1 and pieces[0].source is not None:
        value = evaluate(pieces[0].source, scope)
        if isinstance(value, list):
            return [as_text(part) for part in value]
    return fill_text(word, scope)


def _argv_paths(schema: Mapping[str, Any], value: Any) -> list[Path]:
    return [path for path, marks in marked(schema, schema, value, ()) if marks.get("x-argv") and path]


def _at(value: Any, path: Path) -> Any:
    for part in path:
        value = value[part]
    return value


def _put(value: Any, path: Path, part: Any) -> None:
    _at(value, path[:-1])[path[-1]] = part


def split_words(schema: Mapping[str, Any], template: Mapping[str, Any]) -> dict[str, Any]:
    """The template with its command lines split into words; an expression stays in one word.

    Raises BadLine.
    """
    split: dict[str, Any] = _copy(template)
    for path in _argv_paths(schema, split):
        line = _at(split, path)
        if isinstance(line, str):
            try:
                _put(split, path, split_line(line))
            except ValueError as fault:
                raise BadLine(str(fault), path) from None
    return split


def split_line(line: str) -> list[str]:
    """A command line's words, with expressions untouched. Raises ValueError for a quote that is not closed."""
    if "\0" in line:
        raise ValueError("must not hold a NUL character")
    pieces = split_text(line)
    held = iter([piece.text for piece in pieces if piece.source is not None])
    # Replace each expression by a character that no parameter may contain while the line is split by shell rules.
    text = "".join(piece.text if piece.source is None else "\0" for piece in pieces)
    words: list[str] = []
    for word in split_argv(text) or ():
        first, *others = str(word).split("\0")
        parts = [_escape(first, before=bool(others))]
        for index, part in enumerate(others, 1):
            parts += [next(held), _escape(part, before=index < len(others))]
        words.append("".join(parts))
    return words


def _escape(text: str, *, before: bool) -> str:
    """Text as it is written in a template; ``before`` an expression."""
    text = text.replace(OPENING, ESCAPED)
    return f'{text[:-1]}${{{{ "$" }}}}' if before and text.endswith("$") else text


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _copy(part) for name, part in value.items()}
    return [_copy(part) for part in value] if isinstance(value, list) else value
