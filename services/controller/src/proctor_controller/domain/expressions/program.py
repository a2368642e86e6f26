"""A compiled expression, and how it is run. CEL by a library; pure.

Two things differ from the library: patterns go to the linear-time engine, and ``map`` and ``filter`` get long lists in
turns, because the library copies the whole result with each element.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cel

from proctor_controller.domain.documents.json_schema import BadSchema, compile_pattern
from proctor_controller.domain.expressions.cost import CHUNK, Cost
from proctor_controller.domain.expressions.fault import ExpressionFault, Scope, Unfit, runtime_fault, syntax_fault
from proctor_controller.domain.expressions.source import Loop, ParsedSource, SourceFault, read_source

FEW = 200_000
"""Units of work up to which an expression is evaluated as written: about ten milliseconds."""
MAX_PATTERN = 1000
MAX_PATTERNS = 100
MAX_MATCHED = 4 * 1024 * 1024
ITEMS = "proctor_items"
MATCHES = "proctor_matches"

Functions = Mapping[str, Callable[..., Any]]


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
    if not source.loops and not source.matches:
        return Program(source, whole)
    copying = [loop for loop in source.loops if loop.copies]
    parts = []
    for index, loop in enumerate(copying):
        body = f"{ITEMS}.{text[loop.start : loop.end]}"
        parts.append((f"proctor_loop{index}", read_source(body), cel.compile(_renamed(read_source(body)))))
    return Program(source, cel.compile(_renamed(source)), cel.compile(_without(source, copying)), tuple(parts))


def _renamed(source: ParsedSource) -> str:
    """The source with the library's ``matches`` replaced by ours."""
    return replaced(source.text, [(start, start + len("matches"), MATCHES) for start in source.matches])


def _without(source: ParsedSource, loops: list[Loop]) -> str:
    """The source with a call for each of the loops."""
    found = [(loop.start, loop.end, f"proctor_loop{index}()") for index, loop in enumerate(loops)]
    others = [at for at in source.matches if not any(start <= at < end for start, end, _ in found)]
    return replaced(source.text, [*found, *((at, at + len("matches"), MATCHES) for at in others)])


def replaced(text: str, changes: list[tuple[int, int, str]]) -> str:
    """The text with other text from each start to its end."""
    for start, end, by in sorted(changes, reverse=True):
        text = text[:start] + by + text[end:]
    return text


def run(program: Program, scope: Scope, cost: Cost, functions: Functions) -> Any:
    """The expression's value. Raises ExpressionFault."""
    return _Run(program, scope, functions).value(cost)


class _Run:
    """One evaluation. ``fault``: why a function of ours failed."""

    def __init__(self, program: Program, scope: Scope, functions: Functions) -> None:
        self._program = program
        self._scope = scope
        self._fault: Exception | None = None
        self._patterns: set[str] = set()
        self._matched = 0
        self._functions: dict[str, Any] = {}
        if program.source.has_functions:
            self._functions |= {name: self._guarded(function) for name, function in functions.items()}
        if program.source.matches:
            self._functions[MATCHES] = self._guarded(self._matches)

    def value(self, cost: Cost) -> Any:
        program, loops = self._program.whole, {}
        if self._program.loops and cost.at_once > FEW and not self._program.source.has_uint:
            program = self._program.turns
            loops = {name: self._guarded(self._loop(source, body)) for name, source, body in self._program.loops}
        try:
            return program.execute({**_trim(self._program.source, self._scope), **self._functions, **loops})
        except Exception as fault:
            raise runtime_fault(self._program.source, self._scope, self._fault or fault) from None

    def _guarded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            try:
                return function(*given)
            except Exception as fault:
                self._fault = self._fault or fault
                raise _Stopped from None

        return call

    def _loop(self, source: ParsedSource, body: Any) -> Callable[[Any], list[Any]]:
        names = {**_trim(source, self._scope), **self._functions}

        def loop(given: Any) -> list[Any]:
            if not isinstance(given, list | dict):
                raise TypeError("a macro goes over a list or a map")
            items, found = list(given), []
            for start in range(0, len(items), CHUNK):
                found += body.execute({**names, ITEMS: items[start : start + CHUNK]})
            return found

        return loop

    def _matches(self, text: Any, pattern: Any) -> bool:
        if not isinstance(text, str) or not isinstance(pattern, str):
            raise TypeError("matches takes two texts")
        self._patterns.add(pattern)
        self._matched += len(text)
        if len(pattern) > MAX_PATTERN or len(self._patterns) > MAX_PATTERNS:
            raise Unfit(f"matches takes patterns of at most {MAX_PATTERN} characters, {MAX_PATTERNS} of them")
        if self._matched > MAX_MATCHED:
            raise Unfit(f"matches looks through more than {MAX_MATCHED} characters")
        try:
            return compile_pattern(pattern).search(text) is not None
        except BadSchema:
            raise Unfit("matches takes a pattern of the linear-time engine (RE2)") from None


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
