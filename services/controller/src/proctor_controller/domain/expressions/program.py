"""A compiled expression, and how it is run. CEL by a library; pure.

Two things differ from the library: patterns go to the linear-time engine, and ``map`` and ``filter`` get long lists in
turns, because the library copies the whole result with each element.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cel

from proctor_controller.domain.expressions.cost import CHUNK, MAX_ELEMENTS, Cost
from proctor_controller.domain.expressions.fault import ExpressionFault, Scope, Unfit, runtime_fault, syntax_fault
from proctor_controller.domain.expressions.functions import Functions
from proctor_controller.domain.expressions.lexer import SourceFault
from proctor_controller.domain.expressions.names import RENAMED
from proctor_controller.domain.expressions.source import MAX_SOURCE, Loop, ParsedSource, read_source

FEW = 200_000
"""Units of work up to which an expression is evaluated as written: about ten milliseconds."""
ITEMS = "proctor_items"
_NAMES = {ours: name for name, ours in RENAMED.items()}


class _Stopped(Exception):
    """A function of ours failed. Without text, as the library logs it."""


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled expression."""

    source: ParsedSource
    whole: Any
    """As written."""
    turns: Any = None
    """With calls in place of the loops that copy; None: there are none."""
    loops: tuple[tuple[str, ParsedSource, Any], ...] = ()


@lru_cache(maxsize=2000)
def compile_source(text: str) -> Program:
    """The program. Raises ExpressionFault if it is not CEL or breaks a limit."""
    try:
        source = read_source(text)
    except SourceFault as fault:
        raise ExpressionFault(text, fault.position, fault.reason) from None
    try:
        whole = cel.compile(text)
    except Exception as fault:
        raise syntax_fault(text, str(fault)) from None
    if not source.loops and not source.renames:
        return Program(source, whole)
    copying = [loop for loop in source.loops if loop.copies]
    parts = []
    for index, loop in enumerate(copying):
        body = f"{ITEMS}.{text[loop.start : loop.end]}"
        parts.append((f"proctor_loop{index}", read_source(body), cel.compile(_renamed(read_source(body)))))
    return Program(source, cel.compile(_renamed(source)), cel.compile(_without(source, copying)), tuple(parts))


def _renamed(source: ParsedSource) -> str:
    """The source with our names of functions."""
    return replaced(source.text, list(source.renames))


def _without(source: ParsedSource, loops: list[Loop]) -> str:
    """The source with a call for each of the loops."""
    found = [(loop.start, loop.end, f"proctor_loop{index}()") for index, loop in enumerate(loops)]
    others = [each for each in source.renames if not any(start <= each[0] < end for start, end, _ in found)]
    return replaced(source.text, [*found, *others])


def replaced(text: str, changes: list[tuple[int, int, str]]) -> str:
    """The text with other text from each start to its end."""
    for start, end, by in sorted(changes, reverse=True):
        text = text[:start] + by + text[end:]
    return text


def run(program: Program, scope: Scope, cost: Cost) -> Any:
    """The expression's value. Raises ExpressionFault."""
    return _Run(program, scope).value(cost)


class _Run:
    """One evaluation. ``fault``: why a function of ours failed."""

    def __init__(self, program: Program, scope: Scope) -> None:
        self._program = program
        self._scope = scope
        self._fault: Exception | None = None
        self._functions: dict[str, Any] = {}
        if program.source.has_functions:
            ours = Functions()
            self._functions = {name: self._guarded(call, ours.taken, name) for name, call in ours.table().items()}

    def value(self, cost: Cost) -> Any:
        program, loops = self._program.whole, {}
        parsed = self._program.source
        # What a function makes of a text has a size that is known to whoever is given it only.
        if self._program.loops and (cost.at_once > FEW or parsed.makers) and not parsed.has_uint:
            program = self._program.turns
            loops = {name: self._guarded(self._loop(source, body)) for name, source, body in self._program.loops}
        try:
            return program.execute({**_trim(self._program.source, self._scope), **self._functions, **loops})
        except Exception as fault:
            raise runtime_fault(self._program.source, self._scope, self._fault or fault) from None

    def _guarded(
        self, function: Callable[..., Any], taken: Callable[[Any], Any] = lambda made: made, name: str = ""
    ) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            try:
                return taken(function(*given))
            except Exception as fault:
                if name and isinstance(fault, TypeError) and (not fault.args or "argument" in str(fault)):
                    fault = TypeError(f"Function '{_NAMES.get(name, name)}'")
                self._fault = self._fault or fault
                raise _Stopped from None

        return call

    def _loop(self, source: ParsedSource, body: Any) -> Callable[[Any], list[Any]]:
        names = {**_trim(source, self._scope), **self._functions}

        def loop(given: Any) -> list[Any]:
            if not isinstance(given, list | dict):
                raise TypeError("a macro goes over a list or a map")
            items, found = list(given), []
            if len(items) > MAX_ELEMENTS + MAX_SOURCE:
                raise Unfit(f"a macro would see {len(items)} elements, and {MAX_ELEMENTS} are allowed")
            for start in range(0, len(items), CHUNK):
                found += body.execute({**names, ITEMS: items[start : start + CHUNK]})
            return found

        return loop


def _trim(parsed: ParsedSource, scope: Scope) -> dict[str, Any]:
    """The part of the scope that the expression reads: the library copies all that it gets."""
    wanted: dict[str, Any] = {}
    for reference in sorted(parsed.references, key=lambda found: len(found.path)):
        value: Any = scope
        made = wanted
        for index, name in enumerate(reference.path):
            if not isinstance(value, Mapping) or name not in value:
                break
            value = value[name]
            if index == len(reference.path) - 1 or not isinstance(value, Mapping):
                made.setdefault(name, value)
                break
            deeper = made.setdefault(name, {})
            if deeper is value:
                break
            made = deeper
    return wanted
