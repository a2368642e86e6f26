"""The source of a CEL expression, read by a small tokenizer: which names it reads, where its macros are. Pure.

The library says only which roots an expression uses. What is read below them (``steps.build.outputs``) must be known
before anything is evaluated: it makes edges, finds misspelt names and limits where hidden values may go.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from proctor_controller.domain.expressions.lexer import Lexeme, SourceFault, tokens
from proctor_controller.domain.expressions.names import (
    CALLED,
    CALLED_ON,
    FUNCTIONS,
    GROWS,
    MACROS,
    MAKE_TEXT,
    MAKES_PARTS,
    MEMBERS_ONLY,
    NO_NAMES,
    RENAMED,
    ROOTS,
    SPACES,
    TYPES,
)

MAX_SOURCE = 4096


@dataclass(frozen=True, slots=True)
class Reference:
    """A name that is read, with the members that are known from the source: ``("steps", "build", "outputs")``."""

    path: tuple[str, ...]
    position: int
    """Counts from 1."""
    dashed: str | None = None
    """The last name with the ``-name`` that follows it at once, if any: probably not meant as a subtraction."""
    in_macro: bool = False
    """It is read once for each element."""
    index: int | None = None
    """The number in brackets that follows, and ``item`` the member after it: ``hosts.dut[1].host``."""
    item: str | None = None
    is_asked: bool = False
    """It is compared with ``null`` itself."""

    @property
    def root(self) -> str:
        """The first name."""
        return self.path[0]

    @property
    def member(self) -> str | None:
        """The name below the root."""
        return self.path[1] if len(self.path) > 1 else None


@dataclass(frozen=True, slots=True)
class Loop:
    """A macro in the source, from ``start`` (its name) to ``end`` (after its bracket)."""

    name: str
    start: int
    end: int

    @property
    def copies(self) -> bool:
        """Whether its result is a list, which the library copies with each element."""
        return self.name in {"map", "filter"}

    @property
    def position(self) -> int:
        """Position of its name, from 1."""
        return self.start + 1


@dataclass(frozen=True, slots=True)
class Called:
    """A function that is called; ``on``: as a method of its subject. Named from ``start`` to ``end``, from 0."""

    name: str
    start: int
    end: int
    on: bool = False

    @property
    def position(self) -> int:
        """Of its name, from 1."""
        return self.start + 1

    @property
    def is_known(self) -> bool:
        """Whether there is such a function."""
        return self.name in (CALLED_ON if self.on else CALLED)


@dataclass(frozen=True, slots=True)
class Chain:
    """A value of the scope that the expression is as a whole, or that it makes text of: ``string(params.sites[1])``."""

    path: tuple[str | int, ...]
    start: int
    end: int
    is_whole: bool


@dataclass(frozen=True, slots=True)
class ParsedSource:
    """What is known of an expression from its source."""

    text: str
    references: tuple[Reference, ...]
    macros: int
    """How many it has; ``loops``: where they are."""
    commas: int
    """Bounds the number of elements in its literals."""
    has_functions: bool = False
    """It calls a function of ours."""
    growth: int = 1
    """Factor by which its macros may enlarge their input: one that names its element twice doubles it."""
    loops: tuple[Loop, ...] = ()
    renames: tuple[tuple[int, int, str], ...] = ()
    """From where to where functions are named that the library calls by another name."""
    makers: int = 0
    """How many of its functions make parts of a text."""
    growing: int = 0
    """How many of its functions may come to more than they are given."""
    additions: int = 0
    """Number of signs that may concatenate lists."""
    has_uint: bool = False
    """It may have unsigned numbers, which are a different type outside of the library."""
    called: tuple[Called, ...] = ()
    """Functions that it calls, without macros."""
    chains: tuple[Chain, ...] = ()


@lru_cache(maxsize=4000)
def read_source(text: str) -> ParsedSource:
    """What the expression reads. Raises SourceFault; only the library checks whether it is CEL at all."""
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_SOURCE:
        raise SourceFault(f"the expression has {size} bytes, and {MAX_SOURCE} are allowed", 1)
    reader = _Parser(list(tokens(text)))
    references = tuple(reader.read())
    commas = sum(token.value == "," for token in reader.tokens)
    called = tuple(reader.called())
    growth = math.prod(max(1, uses) for uses in reader.uses)
    return ParsedSource(
        text,
        references,
        reader.macros,
        commas,
        any(each.name in FUNCTIONS for each in called),
        growth,
        loops=tuple(reader.loops),
        renames=tuple((each.start, each.end, RENAMED[each.name]) for each in called if each.name in RENAMED),
        makers=sum(each.name in MAKES_PARTS for each in called),
        growing=sum(each.name in GROWS for each in called),
        additions=sum(token.kind == "sign" and token.value == "+" for token in reader.tokens),
        has_uint=any(
            token.value == "uint" or (token.kind == "number" and token.value[-1] in "uU") for token in reader.tokens
        ),
        called=called,
        chains=tuple(reader.chains()),
    )


class _Parser:
    """One pass over the tokens. ``open``: the macro variables of each open bracket."""

    def __init__(self, found: list[Lexeme]) -> None:
        self.tokens = found
        self.macros = 0
        self.uses: list[int] = []
        self.loops: list[Loop] = []
        self._open: list[str | None] = []

    def read(self) -> Iterator[Reference]:
        index = 0
        while index < len(self.tokens):
            token = self.tokens[index]
            if token.value == "`":
                raise SourceFault("names stand without backticks", token.start + 1)
            if token.kind == "sign" and token.value in "([{":
                self._open.append(None)
            elif token.kind == "sign" and token.value in ")]}":
                if self._open and self._open.pop() is not None:
                    self.loops[-1] = replace(self.loops[-1], end=token.end)
            elif token.kind == "name":
                if self._is_macro(index):
                    index = self._enter(index)
                    continue
                if not self._is_member(index):
                    reference, index = self._reference(index)
                    if reference is not None:
                        yield reference
                    continue
            index += 1

    def called(self) -> Iterator[Called]:
        """The functions that are called; call it after macros have been read."""
        macros = {loop.start for loop in self.loops}
        for index, token in enumerate(self.tokens):
            if token.kind == "name" and self._is(index + 1, "(") and token.start not in macros:
                on = self._is(index - 1, ".")
                if on and self._is_space(index - 2):
                    space = self.tokens[index - 2]
                    yield Called(f"{space.value}.{token.value}", space.start, token.end)
                else:
                    yield Called(token.value, token.start, token.end, on)

    def _is_space(self, index: int) -> bool:
        """Whether a name stands there that only functions have before their own."""
        token = self._at(index)
        is_name = token is not None and token.kind == "name" and token.value in SPACES
        return is_name and self._is(index + 1, ".") and self._is(index + 3, "(") and not self._is(index - 1, ".")

    def chains(self) -> Iterator[Chain]:
        """The values that the expression is as a whole, or makes text of."""
        whole = self._chain(0)
        if whole is not None and whole[1] == len(self.tokens):
            yield Chain(whole[0], self.tokens[0].start, self.tokens[-1].end, is_whole=True)
            return
        for index, token in enumerate(self.tokens):
            if token.kind == "name" and token.value in MAKE_TEXT and self._is(index + 1, "("):
                found = self._chain(index + 2)
                if found is not None and (self._is(found[1], ")") or self._is(found[1], ",")):
                    yield Chain(found[0], self.tokens[index + 2].start, self.tokens[found[1] - 1].end, is_whole=False)

    def _chain(self, index: int) -> tuple[tuple[str | int, ...], int] | None:
        """The path of a name with its members that begins at ``index``, and what follows it."""
        first = self._at(index)
        if first is None or first.kind != "name" or first.value not in ROOTS:
            return None
        path: list[str | int] = [first.value]
        index += 1
        while (member := self._at(index + 1)) is not None:
            if self._is(index, ".") and member.kind == "name" and not self._is(index + 2, "("):
                path.append(member.value)
                index += 2
            elif self._is(index, "[") and self._is(index + 2, "]") and member.kind == "text":
                path.append(member.value)
                index += 3
            elif self._is(index, "[") and self._is(index + 2, "]") and member.value.isdecimal():
                path.append(int(member.value[:9]))
                index += 3
            else:
                break
        return tuple(path), index

    def _at(self, index: int) -> Lexeme | None:
        return self.tokens[index] if 0 <= index < len(self.tokens) else None

    def _is(self, index: int, sign: str) -> bool:
        token = self._at(index)
        return token is not None and token.kind == "sign" and token.value == sign

    def _is_member(self, index: int) -> bool:
        if not self._is(index - 1, "."):
            return False
        before = self._at(index - 2)
        if before is None or (before.kind == "sign" and before.value not in {")", "]", "}"}):
            raise SourceFault("a name has no dot before it", self.tokens[index - 1].start + 1)
        return True

    def _is_macro(self, index: int) -> bool:
        return self._is_member(index) and self._is(index + 1, "(") and self.tokens[index].value in MACROS

    def _enter(self, index: int) -> int:
        """Past the macro's variable."""
        start = self.tokens[index].start + 1
        if any(variable is not None for variable in self._open):
            raise SourceFault(f"macros do not nest: {self.tokens[index].value} stands within another one", start)
        variable = self._at(index + 2)
        if variable is None or variable.kind != "name" or not self._is(index + 3, ","):
            raise SourceFault(f"{self.tokens[index].value} takes a name, a comma and an expression", start)
        if variable.value in ROOTS:
            raise SourceFault(f"{variable.value} is a name of its own here: call the element otherwise", start)
        self.macros += 1
        self.uses.append(0)
        self.loops.append(Loop(self.tokens[index].value, start - 1, start))
        self._open.append(variable.value)
        return index + 4

    def _reference(self, index: int) -> tuple[Reference | None, int]:
        token = self.tokens[index]
        name = token.value
        if name in self._open:
            self.uses[-1] += 1
            return None, index + 1
        if name in NO_NAMES or self._is(index + 1, "(") or self._is_space(index):
            return None, index + 1
        path, following = [name], index + 1
        while True:
            member = self._at(following + 1)
            if member is None:
                break
            if self._is(following, ".") and member.kind == "name" and not self._is(following + 2, "("):
                path.append(member.value)
                following += 2
            elif self._is(following, "[") and member.kind == "text" and self._is(following + 2, "]"):
                path.append(member.value)
                following += 3
            else:
                break
        if name in TYPES and len(path) == 1:
            return None, following
        if name in MEMBERS_ONLY and len(path) == 1:
            raise SourceFault(f'{name} stands only as {name}.NAME or {name}["NAME"]', token.start + 1)
        in_macro = any(variable is not None for variable in self._open)
        number, item = self._item(following)
        dashed = self._dashed(following, path[-1])
        asked = self._is_null(following, 1) or self._is_null(index - 2, -1)
        return Reference(tuple(path), token.start + 1, dashed, in_macro, number, item, asked), following

    def _is_null(self, sign: int, step: int) -> bool:
        """Whether ``== null`` or ``!= null`` stands there, from the sign on or up to it."""
        null = self._at(sign + step) if step > 0 else self._at(sign)
        compared = sign if step > 0 else sign + 1
        return null is not None and null.value == "null" and (self._is(compared, "==") or self._is(compared, "!="))

    def _item(self, at: int) -> tuple[int | None, str | None]:
        """The number in brackets at ``at``, and the member after them."""
        number, name = self._at(at + 1), self._at(at + 4)
        if not self._is(at, "[") or number is None or not self._is(at + 2, "]") or not number.value.isdecimal():
            return None, None
        is_member = self._is(at + 3, ".") and name is not None and name.kind == "name" and not self._is(at + 5, "(")
        return int(number.value[:9]), name.value if is_member and name is not None else None

    def _dashed(self, following: int, last: str) -> str | None:
        """The name with each ``-name`` that follows it without a blank."""
        text, end = last, self.tokens[following - 1].end
        if self.tokens[following - 1].kind != "name":
            return None
        while self._is(following, "-") and (part := self._at(following + 1)) is not None:
            if self.tokens[following].start != end or part.start != end + 1 or part.kind not in {"name", "number"}:
                break
            text, end = f"{text}-{part.value}", part.end
            following += 2
        return text if text != last else None
