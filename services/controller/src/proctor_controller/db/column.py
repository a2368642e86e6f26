"""Columns of a table: SQL lists, and functions from rows to dataclasses and back, are made of them.

A table is a :class:`Columns`, in the module that has its SQL. SQL lists are its methods. ``reader``, ``writer`` and the
like make functions when that module is imported: they build the source of a function and compile it, as dataclasses do
for ``__init__``. A loop over the columns of each row would be several times as slow, and the engine reads and writes
rows all the time. For ``Column("agent_id", "uuid", READ, "agent", read=str)`` in a table of steps,
``reader(Step, STEPS)`` makes::

    def made(row): return make(agent=turn_1(row['agent_id']))  # make is Step, turn_1 is str
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Flag, StrEnum, auto
from typing import Any, TypeVar

from proctor_controller.db.session import clean, rows_json, to_json
from proctor_controller.domain.documents.spelled import pack

T = TypeVar("T")
Member = TypeVar("Member", bound=StrEnum)


class When(Flag):
    """When a column is read or written."""

    READ = auto()
    """In select lists, and when a row is read."""
    INSERT = auto()
    """When the row is inserted; other columns get the database's default."""
    UPDATE = auto()
    """Whenever the row is saved again."""
    KEY = auto()
    """Identifies the rows that are saved again."""
    PLAN = auto()
    """When the row of a plan's run is inserted; that of a test case has the default."""


FIXED = When.READ | When.INSERT
"""Does not change after the row is inserted."""
CHANGING = FIXED | When.UPDATE


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table, and the attribute with its value."""

    name: str
    type: str
    when: When
    field: str = ""
    """The attribute, or a path of them (``spec.plugin``), if it differs from the column's name."""
    within: str = ""
    """The attribute that contains it; if that one is None, null is written."""
    alias: str = ""
    """The name in select lists that also have a column of this name from another table."""
    read: Callable[[Any], Any] | None = None
    """Makes the attribute of the database's value; None: the same value."""
    write: Callable[[Any], Any] | None = None
    """Makes the database's value of the attribute; None: the same value. Columns of type json get text."""
    insert: str = "{}"
    """SQL of the value ``{}`` when the row is inserted."""
    update: str = "{}"
    """SQL of the value ``{}`` when the row is saved again."""


class Columns(tuple[Column, ...]):
    """Some columns. Values to be written come as arguments, or in records ``x`` (``json_to_recordset``)."""

    __slots__ = ()

    def at(self, when: When) -> "Columns":
        """Those that are read or written at one of these times."""
        return Columns(column for column in self if column.when & when)

    def only(self, *names: str) -> "Columns":
        """Those of these names, in their order. Raises KeyError."""
        known = {column.name: column for column in self}
        return Columns(known[name] for name in names)

    def under(self, attribute: str) -> "Columns":
        """The same, for an object that has the dataclass as this attribute."""
        return Columns(replace(each, field=f"{attribute}.{each.field or each.name}") for each in self)

    def select(self, table: str) -> str:
        """The select list; ``table``: its name in the statement."""
        return ", ".join(f"{table}.{each.name}{each.alias and f' AS {each.alias}'}" for each in self)

    def of(self, table: str) -> str:
        """The columns' own names, as arguments of a function."""
        return ", ".join(f"{table}.{column.name}" for column in self)

    @property
    def names(self) -> str:
        """The column list of an INSERT."""
        return ", ".join(column.name for column in self)

    @property
    def record(self) -> str:
        """The columns of a record, with their types. JSON is text in it, as PostgreSQL refuses NUL in nested JSON."""
        return ", ".join(f"{column.name} {'text' if column.type == 'json' else column.type}" for column in self)

    @property
    def insert_record(self) -> str:
        """The select list of an INSERT from a record."""
        return ", ".join(column.insert.format(_in_record(column)) for column in self)

    def insert_arguments(self, first: int) -> str:
        """The select list of an INSERT from arguments that are numbered from ``first``."""
        return ", ".join(each.insert.format(f"${number}::{each.type}") for number, each in enumerate(self, first))

    @property
    def named(self) -> str:
        """The values of an INSERT from arguments by name, as SQLAlchemy has them."""
        return ", ".join(f":{column.name}" for column in self)

    @property
    def set_named(self) -> str:
        """The SET list of an UPDATE from arguments by name."""
        return ", ".join(f"{column.name} = :{column.name}" for column in self.at(When.UPDATE))

    @property
    def set_record(self) -> str:
        """The SET list of an UPDATE from a record."""
        return ", ".join(f"{each.name} = {each.update.format(_in_record(each))}" for each in self.at(When.UPDATE))

    @property
    def set_excluded(self) -> str:
        """The SET list of an INSERT whose row exists."""
        return ", ".join(f"{each.name} = excluded.{each.name}" for each in self.at(When.UPDATE))

    def set_arguments(self, first: int) -> str:
        """The SET list of an UPDATE from arguments that are numbered from ``first``."""
        numbered = enumerate(self.at(When.UPDATE), first)
        return ", ".join(f"{each.name} = {each.update.format(f'${number}::{each.type}')}" for number, each in numbered)


def _in_record(column: Column) -> str:
    return f"x.{column.name}{'::json' if column.type == 'json' else ''}"


def reader(make: Callable[..., T], columns: Columns, *given: str, start: int | None = None) -> Callable[..., T]:
    """A function that makes a dataclass of a row; the attributes ``given`` are its further arguments.

    ``start``: rows are lists with these columns from there on, possibly from JSON.
    """
    known: dict[str, Any] = {"make": make}
    parts = [f"{name}={name}" for name in given]
    for at, column in enumerate(columns):
        read = to_time if start is not None and column.type == "timestamptz" else column.read
        value = f"row[{column.alias or column.name!r}]" if start is None else f"row[{start + at}]"
        parts.append(f"{column.field or column.name}={_turned(value, read, known)}")
    return _made(f"def made({', '.join(('row', *given))}): return make({', '.join(parts)})", known)


def writer(columns: Columns) -> Callable[[Any], tuple[Any, ...]]:
    """A function that returns an object's values of these columns, in order."""
    known: dict[str, Any] = {}
    return _made(f"def made(thing): return ({', '.join(_written(column, known) for column in columns)},)", known)


def dict_writer(columns: Columns) -> Callable[[Any], dict[str, Any]]:
    """A function that gives the values by the names of the columns: the arguments of a statement with ``named``."""
    known: dict[str, Any] = {}
    return _made(f"def made(thing): return {_record(columns, known)}", known)


def records_writer(columns: Columns) -> Callable[[Iterable[Any]], str]:
    """A function that returns the records of objects, as JSON."""
    known: dict[str, Any] = {"rows_json": rows_json}
    each = f"rows.append({_record(columns, known)})"
    return _made(f"def made(things):\n rows = []\n for thing in things: {each}\n return rows_json(rows)", known)


def _record(columns: Columns, known: dict[str, Any]) -> str:
    return f"{{{', '.join(f'{column.name!r}: {_written(column, known)}' for column in columns)}}}"


def _written(column: Column, known: dict[str, Any]) -> str:
    value = _turned(f"{'within' if column.within else 'thing'}.{column.field or column.name}", column.write, known)
    return f"None if (within := thing.{column.within}) is None else {value}" if column.within else value


def _turned(value: str, turn: Callable[[Any], Any] | None, known: dict[str, Any]) -> str:
    """The value as an expression, with its conversion among the names ``known`` to it."""
    if turn is None:
        return value
    name = f"turn_{len(known)}"
    known[name] = turn
    return f"{name}({value})"


def _made(text: str, known: dict[str, Any]) -> Callable[..., Any]:
    """The function ``made`` of this source, which contains only what a module states in its Columns."""
    exec(text, known)  # noqa: S102 - the head of this module says why
    return known["made"]  # type: ignore[no-any-return]


# -- values -------------------------------------------------------------------------------------------------------


def member_of(kind: type[Member]) -> Callable[[str], Member]:
    """The member of an enumeration by its text. Raises KeyError."""
    return {member.value: member for member in kind}.__getitem__


def maybe_member_of(kind: type[Member]) -> Callable[[str | None], Member | None]:
    """The same, or None. Raises KeyError."""
    members: dict[str | None, Member | None] = {member.value: member for member in kind}
    return {None: None, **members}.__getitem__


def counts_of(kind: type[Member]) -> Callable[[Mapping[str, int]], dict[Member, int]]:
    """Counts by member, from counts by its text."""
    return lambda counts: {kind(name): count for name, count in counts.items()}


def maybe_text(value: Any) -> str | None:
    """An id as text, or None."""
    return None if value is None else str(value)


def maybe_clean(text: str | None) -> str | None:
    """Text as PostgreSQL can store it, or None."""
    return clean(text) if text else None


def maybe_json(value: Mapping[str, Any] | None) -> str | None:
    """The text of JSON, or None; numbers with a spelling of their own are packed."""
    return None if value is None else to_json(pack(dict(value)))


def to_time(value: datetime | str | None) -> datetime | None:
    """A time that may come from JSON."""
    return datetime.fromisoformat(value) if isinstance(value, str) else value
