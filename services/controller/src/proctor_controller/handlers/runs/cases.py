"""``case.submit``: one method on one host, checked as a whole before anything is stored. No SQL."""

from collections.abc import Mapping
from typing import Any

from proctor_common.durations import MAX_SECONDS
from proctor_common.errors import Code, ProctorError, faults, invalid, not_found
from proctor_common.ids import GROUP_NAME, HOST_NAME, is_id, new_id
from proctor_common.limits import MAX_LABELS
from proctor_common.messages.calls.operation import Actor
from proctor_common.messages.calls.runs import SubmitCase
from proctor_common.messages.views import RunView
from proctor_controller.context import ProcessContext
from proctor_controller.db.hosts.candidates import FoundCandidate, find_candidates, group_exists
from proctor_controller.db.runs.submissions import DuplicateRun
from proctor_controller.db.session import Session, session
from proctor_controller.domain.documents.method_parameters import CheckedParameters, check_parameters, mask
from proctor_controller.domain.hosts.placement import Placement
from proctor_controller.domain.runs.step_rules import Rules
from proctor_controller.domain.runs.submission import NodeSpec, RunSpec, StepSpec
from proctor_controller.engine.cache import HostKey
from proctor_controller.engine.engine import Engine
from proctor_controller.engine.settings import EngineSettings
from proctor_controller.handlers.access import existing_run, run_group

MAX_NAME = 200


async def submit_case(context: ProcessContext, actor: Actor, body: SubmitCase) -> RunView:
    """Start a test case as a run of one step. The same run id again returns the run."""
    engine = context.engine
    place = _place(body)
    _check_body(body)
    bound = run_group(actor, body.group)
    key = (place, body.plugin, body.method, bound)
    async with session(engine.database) as db:
        try:
            view = await _submit_again(engine, db, actor, body, key)
            return view or await _submit_anew(engine, db, actor, body, key)
        except DuplicateRun:
            return await existing_run(db, actor, body.run)


async def _submit_again(engine: Engine, db: Session, actor: Actor, body: SubmitCase, key: HostKey) -> RunView | None:
    """Use the method that was just found on the same host; None if that is unknown or outdated."""
    place, _, _, group = key
    known, now = engine.services.cache.host(key), engine.services.cache.now()
    if known is None or now is None or body.target is not None:
        # A target is looked up.
        return None
    checked = _check_case(place, body, [known])
    run = _spec(engine.services.settings, body, place, checked, group=group, by=actor.name)
    view = await engine.submissions.submit_at(db, run, now, known.candidate)
    if view is None:
        engine.services.cache.forget_host(key)
    return view


async def _submit_anew(engine: Engine, db: Session, actor: Actor, body: SubmitCase, key: HostKey) -> RunView:
    place, plugin, method, group = key
    found = await find_candidates(db, place, plugin, method, group=group, target=body.target, with_spec=True)
    if not found and body.group is not None and not await group_exists(db, body.group):
        raise not_found("group", body.group)
    checked = _check_case(place, body, found)
    run = _spec(engine.services.settings, body, place, checked, group=group, by=actor.name)
    view = await engine.submissions.submit(db, run, found[0].now, found)
    if place.host is not None and found[0].slots_made >= found[0].candidate.slots:
        engine.services.cache.keep_host((place, plugin, method, group), found[0])
    return view


def _check_case(place: Placement, body: SubmitCase, found: list[FoundCandidate]) -> CheckedParameters:
    """Raise the first fault in this order: 404, 422, 409."""
    spec = _choose_spec(place, body, found)
    if not any(each.has_target for each in found if each.candidate.has_method):
        raise not_found("target", body.target)
    checked = check_parameters(spec, body.parameters)
    if checked.faults:
        raise faults(list(checked.faults))
    _check_available(place, found)
    return checked


def _place(body: SubmitCase) -> Placement:
    """Where the case runs. ``group`` with a host or labels is the run's group; alone it is also the place."""
    if body.host is not None and body.labels is not None:
        raise invalid("give one of host and labels", path="host")
    if body.host is None and body.labels is None and body.group is None:
        raise invalid("give one of host, group and labels", path="host")
    if body.group is not None and not GROUP_NAME.match(body.group):
        raise not_found("group", body.group[:MAX_NAME])
    if body.labels is not None:
        if not body.labels or len(body.labels) > MAX_LABELS:
            raise invalid(f"give 1 to {MAX_LABELS} labels", path="labels")
        if any("\0" in text for pair in body.labels.items() for text in pair):
            raise invalid("must not hold a NUL character", path="labels")
        return Placement(labels=tuple(sorted(body.labels.items())))
    if body.host is not None:
        if not HOST_NAME.match(body.host):
            raise not_found("host", body.host[:MAX_NAME])
        return Placement(host=body.host)
    return Placement(group=body.group)


def _check_body(body: SubmitCase) -> None:
    if not is_id(body.run):
        raise invalid("is not an id", path="run")
    for name in ("plugin", "method", "target", "name"):
        text = getattr(body, name)
        if text is not None and ("\0" in text or len(text) > MAX_NAME):
            raise invalid(f"must have at most {MAX_NAME} characters and no NUL", path=name)
    if body.record is not None and not all(isinstance(body.record.get(name), str) for name in ("project", "case")):
        raise invalid("needs a project and a case", path="record")
    # A comparison that is false for NaN.
    if body.timeout_s is not None and not 0 < body.timeout_s <= MAX_SECONDS:
        raise invalid("must be more than 0 and at most 30 days", path="timeout")


def _choose_spec(place: Placement, body: SubmitCase, found: list[FoundCandidate]) -> Mapping[str, object]:
    """The method's schema. Raises 404 that names what is missing."""
    if not found:
        raise not_found("host", place.host) if place.host is not None else not_found("agent", str(place))
    for each in found:
        if each.spec is not None:
            return each.spec.parameters
    if not any(each.candidate.registered for each in found):
        raise _unavailable(place, found)
    if not any(each.candidate.has_plugin for each in found):
        raise not_found("plugin", body.plugin)
    raise not_found("method", f"{body.plugin}.{body.method}")


def _check_available(place: Placement, found: list[FoundCandidate]) -> None:
    able = [each for each in found if each.candidate.has_method]
    if all(each.candidate.is_away for each in able):
        raise _unavailable(place, able)


def _unavailable(place: Placement, found: list[FoundCandidate]) -> ProctorError:
    first = found[0].candidate
    reason = first.hindrance() or "it takes no work"
    if place.host is not None or len(found) == 1:
        message = f"the agent of host {first.host} is not available: {reason}"
    else:
        message = f"no agent is available for {place}: {len(found)} of them, e.g. {first.host}: {reason}"
    return ProctorError(Code.AGENT_UNAVAILABLE, message, host=first.host, reason=reason)


def _spec(
    settings: EngineSettings,
    body: SubmitCase,
    place: Placement,
    checked: CheckedParameters,
    *,
    group: str | None,
    by: str,
) -> RunSpec:
    method = f"{body.plugin}.{body.method}"
    timeout = body.timeout_s or settings.default_timeout
    step = StepSpec(
        id=new_id(),
        node=body.method,
        name=body.method,
        plugin=body.plugin,
        method=body.method,
        place=place,
        parameters=checked.parameters,
        secrets=checked.secrets,
        target=body.target,
        timeout_s=timeout,
        grace_s=settings.default_grace,
    )
    return RunSpec(
        id=body.run,
        name=body.name or f"{method} on {place}",
        kind="case",
        steps=(step,),
        group=group,
        parameters=mask(checked.parameters, checked.secrets),
        created_by=by,
        timeout_s=settings.run_timeout(timeout),
        node_specs=() if body.record is None else (NodeSpec(body.method, rules=Rules(record=_literal(body.record))),),
    )


def _literal(value: Any) -> Any:
    """A template for the value itself: a test case's record has no expressions."""
    if isinstance(value, str):
        return value.replace("${{", "$${{")
    if isinstance(value, dict):
        return {name: _literal(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_literal(member) for member in value]
    return value
