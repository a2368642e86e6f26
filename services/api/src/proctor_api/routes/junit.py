"""``GET /v1/runs/{run}/junit``: a run as JUnit XML for CI servers, streamed."""

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from fastapi import Request, Response

from proctor_api.controller_client import ControllerClient
from proctor_api.logs.ends import ends_of, ends_of_log
from proctor_api.routes.guard import caller_of, context_of, needs, router
from proctor_api.routes.logs import PatientResponse
from proctor_api.routes.models import RunRef
from proctor_common.bus import Bus
from proctor_common.messages.calls.operation import Actor
from proctor_common.messages.calls.runs import GET_RUN, LIST_STEPS, StepList
from proctor_common.messages.calls.runs import RunRef as RunCall
from proctor_common.messages.views import RunView, StepView
from proctor_common.states import Role, RunResult, Source, StepResult
from proctor_common.terminal_text import shown

routes = router("runs")

MEDIA = "application/xml"
PAGE = 50
"""Steps per request to a controller; each may have 64 KiB of output."""
MAX_TEXT = 16 * 1024
"""Characters of an attribute."""
STEPS = "steps"
SUITES = (STEPS, "on_failure", "rollback", "always")
HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
_CLEANUP = re.compile(r"^(on_failure|rollback|always)[.\[]")
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What no XML 1.0 document may hold, not even escaped."""
PASSED = frozenset({StepResult.PASSED, StepResult.REUSED})
FAILED = frozenset({StepResult.FAILED, StepResult.TIMED_OUT})
ERRORS = frozenset({StepResult.ERROR, StepResult.LOST})
UNWANTED = frozenset({None, StepResult.SKIPPED, StepResult.UPSTREAM_FAILED})
CUT_SHORT = frozenset({RunResult.CANCELLED, None})
"""Results of runs whose steps cannot tell how it would have ended."""
UNFINISHED = "unfinished"


@dataclass(slots=True)
class Counts:
    """The counts of a suite; ``time`` in seconds."""

    tests: int = 0
    failures: int = 0
    errors: int = 0
    skipped: int = 0
    time: float = 0.0
    repeated: bool = False
    """Whether some step had more than one attempt."""

    def add(self, other: "Counts") -> None:
        """Add the counts of another suite."""
        self.tests += other.tests
        self.failures += other.failures
        self.errors += other.errors
        self.skipped += other.skipped
        self.time += other.time
        self.repeated |= other.repeated

    def note(self, step: StepView) -> None:
        """Count a step."""
        self.tests += 1
        self.time += seconds_of(step)
        self.repeated |= step.attempt > 1 or step.result not in {*PASSED, *FAILED, *ERRORS}
        if step.result in FAILED:
            self.failures += 1
        elif step.result in ERRORS:
            self.errors += 1
        elif step.result not in PASSED:
            self.skipped += 1

    def attributes(self) -> str:
        """The counts as XML attributes."""
        return (
            f'tests="{self.tests}" failures="{self.failures}" errors="{self.errors}" skipped="{self.skipped}" '
            f'time="{self.time:.3f}"'
        )


@routes.get(
    "/v1/runs/{run}/junit",
    summary="Show a run as JUnit XML",
    response_class=Response,
    responses={200: {"content": {MEDIA: {"schema": {"type": "string"}}}}},
    openapi_extra=needs(Role.VIEWER),
)
async def get_junit(request: Request, run: RunRef) -> Response:
    """One suite for the plan's steps and one for each part of its cleanup that ran; one test case per step instance.
    Steps that failed or timed out are failures, steps with an error or a lost agent are errors, steps that did not run
    are skipped. Earlier attempts that failed are `flakyFailure` or `rerunFailure` (`…Error`), as Maven Surefire writes
    them. What failed shows the beginning and the end of both streams. If the run did not pass although no step failed,
    was cancelled or has not finished, the additional case `(run)` says why.
    """
    context, actor = context_of(request), caller_of(request).actor
    view = await context.controllers.ask(GET_RUN, actor, RunCall(run=run))
    counts = {STEPS: Counts()}
    async for step in _steps(context.controllers, actor, view.id):
        if is_told(step):
            counts.setdefault(phase_of(step), Counts()).note(step)
    parts = _parts(context.controllers, context.bus, actor, view, counts)
    return PatientResponse(parts, f"{MEDIA}; charset=utf-8", context.settings.slow_viewer)


async def _steps(
    controllers: ControllerClient, actor: Actor, run: str, *, attempts: bool = False
) -> AsyncIterator[StepView]:
    cursor: str | None = None
    while True:
        asked = StepList(run=run, attempts=attempts, limit=PAGE, cursor=cursor)
        page = await controllers.ask(LIST_STEPS, actor, asked)
        for step in page.items:
            yield step
        cursor = page.next
        if cursor is None:
            return


async def _with_attempts(
    controllers: ControllerClient, actor: Actor, run: str
) -> AsyncIterator[tuple[StepView, list[StepView]]]:
    """Each step with its attempts that failed before it ended as it did. Both lists are in document order."""
    attempts = _steps(controllers, actor, run, attempts=True)
    row = await anext(attempts, None)
    async for step in _steps(controllers, actor, run):
        failed = []
        while row is not None and row.id == step.id:
            told = row.attempt == step.attempt and row.result == step.result
            if not told and (row.result in FAILED or row.result in ERRORS):
                failed.append(row)
            row = await anext(attempts, None)
        yield step, failed


async def _parts(
    controllers: ControllerClient, bus: Bus, actor: Actor, run: RunView, counts: dict[str, Counts]
) -> AsyncIterator[bytes]:
    own = own_case(run, counts.get(STEPS, Counts()))
    if own is not None:
        counts.setdefault(STEPS, Counts()).add(own[0])
    total = Counts()
    for each in counts.values():
        total.add(each)
    yield f"{HEAD}<testsuites name={attribute(run.name)} {total.attributes()}>\n".encode()
    # A suite's counts come before its cases. Steps are read again for each suite, to keep none in memory.
    for phase in (phase for phase in SUITES if phase in counts):
        yield _suite(run, phase, counts[phase]).encode()
        if counts[phase].repeated:
            async for step, failed in _with_attempts(controllers, actor, run.id):
                if phase_of(step) == phase and is_told(step):
                    yield (await case_of(bus, run, step, failed)).encode()
        else:
            async for step in _steps(controllers, actor, run.id):
                if phase_of(step) == phase and is_told(step):
                    yield (await case_of(bus, run, step)).encode()
        if phase == STEPS and own is not None:
            yield own[1].encode()
        yield b"</testsuite>\n"
    yield b"</testsuites>\n"


def _suite(run: RunView, phase: str, counts: Counts) -> str:
    name = run.name if phase == STEPS else f"{run.name}: {phase}"
    stamp = (run.started_at or run.created_at).strftime("%Y-%m-%dT%H:%M:%S")
    return f'<testsuite name={attribute(name)} timestamp="{stamp}" {counts.attributes()}>\n' + (
        _properties(run) if phase == STEPS else ""
    )


def _properties(run: RunView) -> str:
    shown = {
        "run": run.id,
        "number": str(run.number),
        "plan": run.plan or "",
        "state": run.state.value,
        "result": run.result.value if run.result else "",
        "reason": run.reason,
        "group": run.group or "",
        "created_by": run.created_by,
    }
    rows = "".join(f"<property name={attribute(k)} value={attribute(v)}/>\n" for k, v in shown.items() if v)
    return f"<properties>\n{rows}</properties>\n"


def own_case(run: RunView, counts: Counts) -> tuple[Counts, str] | None:
    """A case for the run itself: where it was cancelled, has not ended, or ended badly though no step tells so."""
    told = run.result is RunResult.PASSED or counts.failures or counts.errors
    if told and run.result not in CUT_SHORT:
        return None
    kind = "error" if run.result in {RunResult.ERROR, *CUT_SHORT} else "failure"
    type_ = UNFINISHED if run.result is None else run.result.value
    said = run.reason or (f"not finished: {run.state.value}" if run.result is None else type_)
    text = (
        f'<testcase classname={attribute(run.name)} name="(run)" time="0.000">'
        f"<{kind} type={attribute(type_)} message={attribute(said)}/></testcase>\n"
    )
    return Counts(tests=1, failures=int(kind == "failure"), errors=int(kind == "error")), text


def phase_of(step: StepView) -> str:
    """``steps``, or the part of the cleanup that the step belongs to by its name (a plan cannot use such names)."""
    found = _CLEANUP.match(step.step)
    return found[1] if found else STEPS


def is_told(step: StepView) -> bool:
    """Whether the step is a test case: every step of the plan, and cleanup steps that ran."""
    return phase_of(step) == STEPS or step.result not in UNWANTED


def seconds_of(step: StepView) -> float:
    """Duration of the last attempt in seconds; 0 if it did not start or end."""
    if step.started_at is None or step.finished_at is None:
        return 0.0
    return max(0.0, (step.finished_at - step.started_at).total_seconds())


async def case_of(bus: Bus, run: RunView, step: StepView, failed: Sequence[StepView] = ()) -> str:
    """The element of one step; ``failed``: its attempts before."""
    name = f"{step.step}[{step.instance}]" if step.instance else step.step
    head = f'<testcase classname={attribute(run.name)} name={attribute(name)} time="{seconds_of(step):.3f}"'
    inner = _verdict(step)
    way = "flaky" if step.result in PASSED else "rerun"
    for attempt in failed:
        tag = f"{way}{'Failure' if attempt.result in FAILED else 'Error'}"
        type_, said, detail = _fault(attempt)
        inner += f"<{tag} type={attribute(type_)} message={attribute(said)}>\n"
        inner += f"<stackTrace>{text_of(detail)}</stackTrace>\n{await _streams(bus, run, attempt)}</{tag}>\n"
    inner += await _streams(bus, run, step)
    return f"{head}>\n{inner}</testcase>\n" if inner else f"{head}/>\n"


async def _streams(bus: Bus, run: RunView, step: StepView) -> str:
    """What an attempt wrote: of one that failed both streams out of its log, which has more than its output kept."""
    found: dict[Source, str] = {}
    if step.agent is not None and (step.result in FAILED or step.result in ERRORS):
        found = await ends_of_log(bus, step.agent, run.id, step.id, step.attempt)
    text = ""
    for source, tag, kept in (
        (Source.STDOUT, "system-out", step.output.get("stdout", step.output.get("body"))),
        (Source.STDERR, "system-err", step.output.get("stderr")),
    ):
        said = found.get(source) or (ends_of(kept) if isinstance(kept, str) else "")
        if said:
            text += f"<{tag}>{text_of(said)}</{tag}>\n"
    return text


def _verdict(step: StepView) -> str:
    if step.result in PASSED:
        return ""
    if step.result in FAILED or step.result in ERRORS:
        kind = "failure" if step.result in FAILED else "error"
        type_, said, detail = _fault(step)
        return f"<{kind} type={attribute(type_)} message={attribute(said)}>{text_of(detail)}</{kind}>\n"
    why = step.reason or step.waiting_for or (step.result.value if step.result else f"not finished: {step.state.value}")
    return f"<skipped message={attribute(why)}/>\n"


def _fault(step: StepView) -> tuple[str, str, str]:
    """Of an attempt that failed: the kind, the reason, and what else is known of it."""
    error = step.error or {}
    rows = [f"host {step.host}" if step.host else "", f"attempt {step.attempt}"]
    rows += [f"exit code {step.exit_code}"] if step.exit_code is not None else []
    rows += [str(step.output["stderr_last_line"])] if step.output.get("stderr_last_line") else []
    said = step.reason or str(error.get("message") or "") or str(step.result)
    return str(error.get("kind") or step.result), said, shown("\n".join(row for row in rows if row))


def attribute(text: str) -> str:
    """The text as a quoted attribute."""
    return quoteattr(_clean(shown(text))[:MAX_TEXT])


def text_of(text: str) -> str:
    """A text without commands of terminals as an element's content."""
    return escape(_clean(text))


def _clean(text: str) -> str:
    return _ILLEGAL.sub("\ufffd", text)
