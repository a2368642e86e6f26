"""Members that judge a step's end: retry, failed_when, until, expect, record, outputs, artefacts. Pure."""

from collections.abc import Mapping
from typing import Any

from proctor_common.ids import STEP_NAME
from proctor_controller.domain.documents.spelled import is_scalar
from proctor_controller.domain.expressions.text import has_expression
from proctor_controller.domain.plan.hot import is_hot
from proctor_controller.domain.plan.model import Path
from proctor_controller.domain.plan.reader import BAD_NAME, Unknown
from proctor_controller.domain.plan.templates import AFTER, Names, Templates
from proctor_controller.domain.runs.step import Retry, RetryOn
from proctor_controller.domain.runs.step_rules import MAX_ARTEFACTS, MAX_PATTERN

MAX_ATTEMPTS = 100
MAX_OUTPUTS = 100
RECORD = (
    "project", "case", "pod", "installer", "version", "scenario", "build_tag", "criteria", "details", "declare",
)  # fmt: skip
_RETRY = ("attempts", "delay", "backoff", "max_delay", "on")


def read_retry(reader: Templates, value: Any, path: Path) -> Retry:
    """``retry``"""
    given = reader.mapping(value, path, _RETRY)
    retry = {key: part for key in given if not isinstance(part := reader.early(given[key], (*path, key)), Unknown)}
    backoff = retry.get("backoff", 1)
    if isinstance(backoff, bool) or not isinstance(backoff, int | float) or not 1 <= backoff <= 100:
        reader.fault((*path, "backoff"), "must be a number from 1 to 100")
        backoff = 1
    words = retry.get("on", [word.value for word in Retry().on])
    if not isinstance(words, list):
        reader.fault((*path, "on"), f"must be a list of {', '.join(RetryOn)}")
        words = []
    words = [reader.choice(word, (*path, "on", index), RetryOn) for index, word in enumerate(words)]
    return Retry(
        attempts=reader.count(retry.get("attempts", 1), (*path, "attempts"), most=MAX_ATTEMPTS),
        delay_s=reader.duration(retry.get("delay", 0), (*path, "delay"), least=0.0),
        backoff=float(backoff),
        max_delay_s=reader.duration(retry.get("max_delay", 3600), (*path, "max_delay"), least=0.0),
        on=frozenset(RetryOn(word) for word in words),
    )


def read_step_outputs(reader: Templates, value: Any, path: Path, names: Names, refs: set[str]) -> dict[str, Any]:
    """``outputs`` of a step."""
    mapping = reader.mapping(value, path)
    for name in list(mapping)[MAX_OUTPUTS : MAX_OUTPUTS + 1]:
        message = f"is one output too many: there are {len(mapping)}, and {MAX_OUTPUTS} are allowed"
        reader.fault((*path, name), message, "too_large")
    for name in mapping:
        if not STEP_NAME.match(name):
            reader.fault((*path, name), BAD_NAME)
    return {name: reader.template(part, (*path, name), names, refs) for name, part in mapping.items()}


def read_expect(reader: Templates, value: Any, path: Path) -> dict[str, Any] | None:
    """``expect``: what the method's error must be."""
    expect = reader.mapping(value, path, ("error",))
    if reader.missing(value, "error", path, ("error",)):
        return None
    where = (*path, "error")
    error = reader.mapping(expect["error"], where)
    if error == {} and isinstance(expect["error"], dict):
        reader.fault(where, "give kind, contains or what else the error must hold")
    for name in ("kind", "contains"):
        if name in error:
            error = {**error, name: reader.text(error[name], (*where, name))}
    filled = reader.early(error, where)
    return dict(filled) if isinstance(filled, Mapping) else None


def read_record(reader: Templates, value: Any, path: Path, names: Names, refs: set[str]) -> dict[str, Any]:
    """``record``: what to store as a result of the Test API."""
    record = dict(reader.mapping(value, path, RECORD))
    for name in ("project", "case"):
        reader.missing(value, name, path, RECORD)
    for name in record.keys() - {"details", "declare"}:
        if not is_scalar(record[name]) and not isinstance(record[name], Mapping):
            reader.fault((*path, name), "must be text")
        record[name] = reader.spelled(record[name], (*path, name))
    filled: dict[str, Any] = {}
    for name, part in record.items():
        filled[name] = reader.template(part, (*path, name), names, refs)
    declare = filled.get("declare", False)
    if not isinstance(declare, bool) and not (isinstance(declare, str) and has_expression(declare)):
        reader.fault((*path, "declare"), "must be true or false")
    return filled


def read_artefacts(reader: Templates, value: Any, path: Path, names: Names, refs: set[str]) -> tuple[str, ...]:
    """``artefacts``: templates of the patterns of files to keep."""
    if not isinstance(value, list) or len(value) > MAX_ARTEFACTS:
        found = f", not {len(value)}" if isinstance(value, list) else ""
        reader.fault(path, f"must be a list of at most {MAX_ARTEFACTS} patterns{found}")
        return ()
    patterns: list[str] = []
    for index, part in enumerate(value):
        where = (*path, index)
        pattern = reader.template(part, where, names, refs) if isinstance(part, str) or is_hot(part) else part
        patterns.append(reader.text(pattern, where, most=MAX_PATTERN))
        if isinstance(part, str) and not part.strip():
            reader.fault(where, "must not be empty")
    return tuple(patterns)


def after(names: Names, outputs: frozenset[str] | None = frozenset()) -> Names:
    """What may be read after the step has ended; nothing hidden. ``outputs``: those of its own filled by then."""
    return Names(AFTER, matrix=names.matrix, step=names.step, own=outputs)
