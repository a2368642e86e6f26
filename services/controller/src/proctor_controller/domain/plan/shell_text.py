"""Finds shell text with expressions in it: the shell would interpret the values as part of the text. Pure."""

import re
from collections.abc import Iterator, Mapping
from posixpath import basename
from typing import Any

from proctor_controller.domain.expressions.evaluate import ExpressionFault
from proctor_controller.domain.expressions.filling import split_line
from proctor_controller.domain.expressions.text import has_expression
from proctor_controller.domain.plan.model import Path

CODE = "value_in_shell_text"
MESSAGE = (
    "a value is never a part of shell text, where the shell would read it as commands: give it in args and write "
    '"$1", or in env and write "$NAME"'
)
SHELLS = frozenset({"ash", "bash", "csh", "dash", "fish", "ksh", "mksh", "sh", "tcsh", "zsh"})
_OPTION = re.compile(r"[-+]")
_TEXT_FOLLOWS = re.compile(r"-[A-Za-z]*c[A-Za-z]*\Z")
_TAKES_WORD = re.compile(r"[-+][A-Za-z]*[oO]\Z")


def find_values(parameters: Mapping[str, Any]) -> Iterator[Path]:
    """Where a call's shell text contains an expression: in ``command`` with ``shell: true`` (or an unknown ``shell``),
    and in the text after ``-c`` of a shell that is called as a program.
    """
    command, args, shell = (parameters.get(name) for name in ("command", "args", "shell"))
    if shell is True or _has_expression(shell):
        if _has_expression(command):
            yield ("command",)
        return
    is_line = isinstance(args, str)
    words = [command, *_words(args)]
    for at in _texts(words):
        if _has_expression(words[at]):
            yield ("args",) if is_line else ("args", at - 1)


def _texts(words: list[Any]) -> Iterator[int]:
    """The indexes of words that are text for a shell: ``sh -c TEXT``, ``sudo bash -o pipefail -ec TEXT``."""
    for start, word in enumerate(words):
        if not isinstance(word, str) or basename(word) not in SHELLS:
            continue
        for at in range(start + 1, len(words) - 1):
            option = words[at]
            if not isinstance(option, str):
                break
            if _TEXT_FOLLOWS.match(option):
                yield at + 1
                break
            if not _OPTION.match(option) and not _TAKES_WORD.match(str(words[at - 1])):
                break


def _words(args: Any) -> list[Any]:
    if isinstance(args, str):
        try:
            return list(split_line(args))
        except (ValueError, ExpressionFault):
            return []
    return args if isinstance(args, list) else []


def _has_expression(value: Any) -> bool:
    try:
        return has_expression(value)
    except ExpressionFault:
        return False
