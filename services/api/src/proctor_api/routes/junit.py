"""``GET /v1/runs/{run}/junit``: a run as JUnit XML for CI servers, streamed."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from fastapi import Request, Response

from proctor_api.controller_client import ControllerClient
from proctor_api.routes.guard import caller_of, context_of, needs, router
from proctor_api.routes.logs import PatientResponse
from proctor_api.routes.models import RunRef
from proctor_common.messages.calls.operation import Actor
from proctor_common.messages.calls.runs import GET_RUN, LIST_STEPS, StepList
from proctor_common.messages.calls.runs import RunRef as RunCall
from proctor_common.messages.views import RunView, StepView
from proctor_common.states import Role, RunResult, StepResult

routes = router("runs")

MEDIA = "application/xml"
PAGE = 50
"""Steps per request to a controller; each may have 64 KiB of output."""
MAX_TEXT = 16 * 1024
"""Characters of a step's output that are shown, from its end."""
STEPS = "steps"
SUITES = (STEPS, "on_failure", "rollback", "always")
HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
_CLEANUP = re.compile(r"^(on_failure|rollback|always)[.\[]")
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 does not allow, not even escaped; ESC of terminal sequences is one of them."""
PASSED = frozenset({StepResult.PASSED, StepResult.REUSED})
FAILED = frozenset({StepResult.FAILED, StepResult.TIMED_OUT})
ERRORS = frozenset({StepResult.ERROR, StepResult.LOST})
UNWANTED = frozenset({None, StepResult.SKIPPED, StepResult.UPSTREAM_FAILED})
QUIET = frozenset({RunResult.PASSED, RunResult.CANCELLED, None})


@dataclass(slots=True)
class Counts:
    """The counts of a suite; ``time`` in seconds."""

    tests: int = 0
    failures: int = 0
    errors: int = 0
    skipped: int = 0
    time: float = 0.0

    def add(self, other: "Counts") -> None:
        """Add the counts of another suite."""
        self.tests += other.tests
        self.failures += other.failures
        self.errors += other.errors
        self.skipped += other.skipped
        self.time += other.time

    def note(self, step: StepView) -> None:
        """Count a step."""
        self.tests += 1
        self.time += seconds_of(step)
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
    are skipped. If the run did not pass although no step failed, the additional case `(run)` says why.
    """
    context, actor = context_of(request), caller_of(request).actor
    view = await context.controllers.ask(GET_RUN, actor, RunCall(run=run))
    counts = {STEPS: Counts()}
    async for step in _steps(context.controllers, actor, view.id):
        if is_told(step):
            counts.setdefault(phase_of(step), Counts()).note(step)
    return PatientResponse(
        _parts(context.controllers, actor, view, counts), f"{MEDIA}; charset=utf-8", context.settings.slow_viewer
    )


async def _steps(controllers: ControllerClient, actor: Actor, run: str) -> AsyncIterator[StepView]:
    cursor: str | None = None
    while True:
        page = await controllers.ask(LIST_STEPS, actor, StepList(run=run, limit=PAGE, cursor=cursor))
        for step in page.items:
            yield step
        cursor = page.next
        if cursor is None:
            return


async def _parts(
    controllers: ControllerClient, actor: Actor, run: RunView, counts: dict[str, Counts]
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
        async for step in _steps(controllers, actor, run.id):
            if phase_of(step) == phase and is_told(step):
                yield case_of(run, step).encode()
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
    """Counts and XML of a case for the run itself, if it did not pass although no step failed; else None."""
    if run.result in QUIET or counts.failures or counts.errors:
        return None
    kind = "error" if run.result is RunResult.ERROR else "failure"
    assert run.result is not None
    text = (
        f'<testcase classname={attribute(run.name)} name="(run)" time="0.000">'
        f"<{kind} type={attribute(run.result.value)} message={attribute(run.reason or run.result.value)}/></testcase>\n"
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


def case_of(run: RunView, step: StepView) -> str:
    """The XML element of a step."""
    name = f"{step.step}[{step.instance}]" if step.instance else step.step
    head = f'<testcase classname={attribute(run.name)} name={attribute(name)} time="{seconds_of(step):.3f}"'
    inner = _verdict(step)
    shown = step.output.get("stdout", step.output.get("body"))
    if isinstance(shown, str) and shown:
        inner += f"<system-out>{text_of(shown)}</system-out>\n"
    return f"{head}>\n{inner}</testcase>\n" if inner else f"{head}/>\n"


def _verdict(step: StepView) -> str:
    if step.result in PASSED:
        return ""
    if step.result in FAILED or step.result in ERRORS:
        kind = "failure" if step.result in FAILED else "error"
        error = step.error or {}
        said = step.reason or str(error.get("message") or "") or str(step.result)
        type_ = str(error.get("kind") or step.result)
        rows = [f"host {step.host}" if step.host else "", f"attempt {step.attempt}"]
        rows += [f"exit code {step.exit_code}"] if step.exit_code is not None else []
        rows += [str(step.output["stderr_last_line"])] if step.output.get("stderr_last_line") else []
        detail = "\n".join(row for row in rows if row)
        return f"<{kind} type={attribute(type_)} message={attribute(said)}>{text_of(detail)}</{kind}>\n"
    why = step.reason or step.waiting_for or (step.result.value if step.result else f"not finished: {step.state.value}")
    return f"<skipped message={attribute(why)}/>\n"


def attribute(text: str) -> str:
    """The text as a quoted XML attribute, at most MAX_TEXT characters."""
    return quoteattr(_clean(text)[:MAX_TEXT])


def text_of(text: str) -> str:
    """The text as content of an XML element; only its last MAX_TEXT characters."""
    shown = text if len(text) <= MAX_TEXT else f"(cut) …{text[-MAX_TEXT:]}"
    return escape(_clean(shown))


def _clean(text: str) -> str:
    return _ILLEGAL.sub("\ufffd", text)
