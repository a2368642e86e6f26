"""Applies a plan's rules to the end of an attempt (expect, failed_when, until, outputs) and of a step. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from proctor_common.limits import MAX_OUTPUT
from proctor_common.states import StepResult
from proctor_controller.domain.documents.json_schema import dotted
from proctor_controller.domain.documents.spelled import is_scalar, written
from proctor_controller.domain.expressions.evaluate import ExpressionFault, fill, holds_for_sure, references_of
from proctor_controller.domain.runs.scope import Scope
from proctor_controller.domain.runs.step import Step
from proctor_controller.domain.runs.step_rules import Rules

JUDGED = frozenset({StepResult.PASSED, StepResult.FAILED, StepResult.ERROR})
"""Ends that came from the method itself; the others say what happened to it."""
RECORDED = frozenset({StepResult.PASSED, StepResult.FAILED, StepResult.ERROR, StepResult.TIMED_OUT, StepResult.LOST})
"""Ends of a step that has run, or should have."""
_DATE = "%Y-%m-%d %H:%M:%S"


@dataclass(frozen=True, slots=True)
class StepVerdict:
    """``is_final``: another attempt would not change it (the plan itself has a fault)."""

    result: StepResult
    reason: str = ""
    outputs: Mapping[str, Any] | None = None
    is_final: bool = False


def describe(where: str, fault: ExpressionFault) -> str:
    """A step's reason for an expression that failed: its location, text, position and the fault."""
    return f"{dotted(fault.path, where)}: {fault}"


def judge_child(rules: Rules | None, scope: Scope, verdict: StepVerdict) -> StepVerdict:
    """The verdict on a nested plan's end: the step gets its outputs, and those that the step itself declares."""
    if rules is None or verdict.result not in JUDGED:
        return verdict
    own = judge(rules, scope, verdict.result, verdict.reason, None)
    if own.result is not StepResult.PASSED:
        return own
    return replace(own, outputs={**(verdict.outputs or {}), **(own.outputs or {})})


def judge(rules: Rules, scope: Scope, result: StepResult, reason: str, error: Mapping[str, Any] | None) -> StepVerdict:
    """The verdict on an attempt that ended with ``result`` as its agent saw it."""
    if rules.expect is not None:
        result, reason = _judge_expected(rules.expect, result, reason, error)
    where = "failed_when"
    try:
        if rules.failed_when is not None and rules.expect is None and result is not StepResult.ERROR:
            result, reason = _judge_failed(rules.failed_when, scope, result, reason)
        where = "until"
        if rules.until is not None and result is StepResult.PASSED and not holds_for_sure(rules.until, scope):
            result, reason = StepResult.FAILED, f"until is not true: {rules.until[:200]}"
    except ExpressionFault as fault:
        if fault.null is not None:
            # What is not there says nothing: it passes no step, and what until waits for may yet come.
            null = f"{fault.null.removeprefix('result.')} is null"
            own = reason if where == "failed_when" else f"until is not true: {str(rules.until)[:200]}"
            return StepVerdict(StepResult.FAILED, f"{own}; {null}" if own else f"{where}: {null}")
        return StepVerdict(StepResult.ERROR, describe(where, fault), is_final=True)
    if result is not StepResult.PASSED or not rules.outputs:
        return StepVerdict(result, reason)
    return _with_outputs(rules, scope, reason)


def _judge_failed(source: str, scope: Scope, result: StepResult, reason: str) -> tuple[StepResult, str]:
    if holds_for_sure(source, scope):
        return StepResult.FAILED, f"failed_when is true: {source[:200]}" + (f" ({reason})" if reason else "")
    code = next((each for each in references_of(source) if each.path[:2] == ("result", "exit_code")), None)
    if result is StepResult.FAILED and code is not None and (scope.get("result") or {}).get("exit_code") is None:
        # A condition on the exit code does not pass what has none.
        return StepResult.FAILED, f"{reason}; exit_code is null".removeprefix("; ")
    return StepResult.PASSED, ""


def _with_outputs(rules: Rules, scope: Scope, reason: str) -> StepVerdict:
    outputs: dict[str, Any] = {}
    for name, template in rules.outputs.items():
        try:
            outputs[name] = fill(template, scope)
        except ExpressionFault as fault:
            return StepVerdict(StepResult.ERROR, describe(f"outputs.{name}", fault), is_final=True)
        size = len(json.dumps(outputs[name], ensure_ascii=False).encode("utf-8", "surrogatepass"))
        if size > MAX_OUTPUT:
            why = f"outputs.{name}: has {size} bytes as JSON; an output holds at most {MAX_OUTPUT}"
            return StepVerdict(StepResult.ERROR, why, is_final=True)
    return StepVerdict(StepResult.PASSED, reason, outputs)


def _judge_expected(
    wanted: Mapping[str, Any], result: StepResult, reason: str, error: Mapping[str, Any] | None
) -> tuple[StepResult, str]:
    """Passed if the method failed as expected: ``kind``, ``contains`` of its message, other keys of its data."""
    if error is None:
        ended = "the method passed" if result is StepResult.PASSED else "the method gave no error"
        said = f" ({reason})" if reason else ""
        return StepResult.FAILED, f"expected an error {_words(wanted)}, but {ended}{said}"
    data = error.get("data") or {}
    for name, value in wanted.items():
        if name == "contains":
            fits = str(value) in str(error.get("message", ""))
        else:
            fits = (error.get("kind") if name == "kind" else data.get(name)) == value
        if not fits:
            got = f"{error.get('kind')}: {str(error.get('message', ''))[:300]}"
            return StepResult.FAILED, f"expected an error {_words(wanted)}, but it was {got}"
    return StepResult.PASSED, ""


def _words(wanted: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {json.dumps(value, ensure_ascii=False)[:100]}" for name, value in wanted.items())


def null_outputs(rules: Rules | None) -> Mapping[str, Any] | None:
    """The outputs of a step that did not pass: each name that it or its nested plan declares is null."""
    if rules is None:
        return None
    names = [*rules.outputs, *(rules.child.outputs if rules.child is not None else ())]
    return dict.fromkeys(names) or None


def fill_record(
    record: Mapping[str, Any], scope: Scope, step: Step, result: StepResult, now: datetime
) -> dict[str, Any]:
    """What a step's ``record`` asks to store. Raises ExpressionFault."""
    filled = {
        name: written(value) if name not in {"details", "declare"} and is_scalar(value) else value
        for name, value in fill(record, scope).items()
    }
    return {
        "pod": step.host,
        "criteria": "PASS" if result is StepResult.PASSED else "FAIL",
        "declare": False,
        **filled,
        "start_date": _date(step.started_at or now),
        "stop_date": _date(now),
    }


def _date(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime(_DATE)
