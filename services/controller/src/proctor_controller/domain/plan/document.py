"""Reads a whole plan and reports all its faults at once. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from proctor_common.ids import PLAN_NAME
from proctor_controller.domain.documents.spelled import written
from proctor_controller.domain.documents.spelling import misspelt
from proctor_controller.domain.documents.tree import Document
from proctor_controller.domain.hosts.requirements import CLEANUP_S, QUEUE_S, HostRole, Requirements, Rollback, Webhook
from proctor_controller.domain.plan import resources
from proctor_controller.domain.plan.model import BadPlan, Plan, PlanStep
from proctor_controller.domain.plan.order import check_order
from proctor_controller.domain.plan.plan_parameters import bind, read_parameters
from proctor_controller.domain.plan.reader import Faults, Unknown, in_order
from proctor_controller.domain.plan.steps import GATE, KINDS, METHOD, Defaults, Steps
from proctor_controller.domain.plan.templates import Known, Templates
from proctor_controller.domain.runs.step import Phase

VERSIONS = ("2026-12-01",)
MAX_STEPS = 1000
MAX_CLEANUP = 100
MEMBERS = (
    "testplan_version", "name", "description", "parameters", "hosts", "volumes", "concurrency", "timeouts", "defaults",
    "steps", "on_failure", "always", "rollback", "hold_on_failure", "outputs", "secrets", "webhook",
)  # fmt: skip


def read_plan(document: Document, given: Mapping[str, Any] | None = None) -> Plan:
    """The plan in a document. ``given``: values of its parameters; None: nobody runs it now, so parameters without a
    default need no value.

    Raises BadPlan.
    """
    plan, faults = examine_plan(document, given)
    if faults:
        raise BadPlan(in_order(faults.all()))
    return plan


def examine_plan(
    document: Document, given: Mapping[str, Any] | None = None, unknown: frozenset[str] = frozenset()
) -> tuple[Plan, Faults]:
    """The plan, as far as it can be read, and its faults. ``given``: as for ``read_plan``; ``unknown``: names of
    parameters whose value is not known yet, whatever their default is.
    """
    faults = Faults(document)
    return _Whole(document.value, faults).read(given, unknown), faults


class _Whole:
    def __init__(self, root: Any, faults: Faults) -> None:
        self._root = root
        self._faults = faults
        self._known = Known()
        self._reader = Templates(self._faults, self._known)

    def read(self, given: Mapping[str, Any] | None, unknown: frozenset[str]) -> Plan:
        reader, root = self._reader, self._root
        if not isinstance(root, dict):
            meant = "; a stored plan is named NAME or NAME@VERSION" if isinstance(root, str) else ""
            reader.fault((), f"a test plan is a mapping{meant}")
            return Plan(name="", steps=())
        reader.members(root, (), MEMBERS)
        self._version()
        name = self._name()
        known = self._known
        known.unread = frozenset(
            "params" if member == "parameters" else member
            for member in ("parameters", "steps", "hosts", "volumes", "secrets")
            if misspelt(root, member, MEMBERS) or not isinstance(root.get(member, {}), dict)
        )
        known.parameters = read_parameters(reader, root.get("parameters", {}))
        known.values = self._values(given, unknown)
        known.outputs = _outputs_of(root.get("steps"))
        known.roles = resources.read_roles(reader, root.get("hosts", {}))
        known.volumes = resources.read_volumes(reader, root.get("volumes", {}))
        known.secrets = self._secrets()
        timeouts = self._timeouts()
        defaults = Defaults(reader, root.get("defaults", {}))
        steps = self._steps(Steps(reader, defaults, known.outputs))
        cleanup = self._cleanup(Steps(reader, defaults, known.outputs))
        wants, webhook_secret = self._wants(timeouts, _roles_of(known.roles.values(), (*steps, *cleanup)))
        description = reader.text(root.get("description", ""), ("description",))
        check_order(reader, steps)
        return Plan(
            name=name,
            steps=steps,
            description=description,
            run_timeout_s=timeouts.get("run"),
            parameters=known.parameters,
            values=known.values,
            cleanup=cleanup,
            wants=wants,
            secrets=known.secrets,
            webhook_secret=webhook_secret,
            secret_texts=self._secret_texts(webhook_secret),
            asked=tuple(known.asked),
        )

    def _values(self, given: Mapping[str, Any] | None, unknown: frozenset[str]) -> dict[str, Any]:
        """Values of the parameters, as far as they can be read."""
        declared = self._known.parameters
        if "params" in self._known.unread:
            return {}
        complete = given is not None
        return bind(self._reader, declared, given or {}, complete=complete, unknown=unknown)

    def _version(self) -> None:
        version = self._root.get("testplan_version")
        if self._reader.missing(self._root, "testplan_version", (), MEMBERS):
            return
        if version not in VERSIONS:
            known = ", ".join(VERSIONS)
            message = f"this version is not known here; known: {known}"
            self._reader.fault(("testplan_version",), message, "unknown_version")

    def _name(self) -> str:
        name = self._reader.spelled(self._root.get("name"), ("name",))
        if self._reader.missing(self._root, "name", (), MEMBERS):
            return ""
        if not isinstance(name, str) or not PLAN_NAME.match(name):
            self._reader.fault(("name",), "must be 1 to 63 letters, digits, dots, dashes or underscores")
        return str(name)

    def _timeouts(self) -> dict[str, float]:
        reader, path = self._reader, ("timeouts",)
        given = reader.mapping(self._root.get("timeouts", {}), path, ("run", "queue", "cleanup"))
        early = {key: reader.early(value, (*path, key)) for key, value in given.items()}
        known = {key: value for key, value in early.items() if not isinstance(value, Unknown)}
        return {key: reader.duration(value, (*path, key)) for key, value in known.items()}

    def _secrets(self) -> dict[str, str]:
        """Secrets of the plan and its steps: a name means one secret in the whole plan."""
        reader = self._reader
        known = resources.read_secrets(reader, self._root.get("secrets", {}), ("secrets",))
        steps = self._root.get("steps")
        for name, step in steps.items() if isinstance(steps, dict) else ():
            own = step.get("secrets") if isinstance(step, dict) else None
            for secret, reference in own.items() if isinstance(own, dict) else ():
                if isinstance(reference, str) and known.setdefault(secret, reference) != reference:
                    reader.fault(("steps", name, "secrets", secret), "the same name means another secret elsewhere")
        return known

    def _steps(self, steps: Steps) -> tuple[PlanStep, ...]:
        value = self._root.get("steps")
        if self._reader.missing(self._root, "steps", (), MEMBERS):
            return ()
        if not isinstance(value, dict) or not value:
            self._reader.fault(("steps",), "must be a mapping of at least one step")
            return ()
        for name in list(value)[MAX_STEPS : MAX_STEPS + 1]:
            message = f"is one step too many: the plan has {len(value)}, and {MAX_STEPS} are allowed"
            self._reader.fault(("steps", name), message, "too_large")
        return tuple(steps.main(name, step) for name, step in list(value.items())[:MAX_STEPS])

    def _cleanup(self, steps: Steps) -> tuple[PlanStep, ...]:
        found: list[PlanStep] = []
        for phase in (Phase.ON_FAILURE, Phase.ALWAYS):
            listed = self._root.get(phase.value, [])
            if not isinstance(listed, list):
                self._reader.fault((phase.value,), "must be a list of steps")
                continue
            if len(listed) > MAX_CLEANUP:
                message = f"is one step too many: there are {len(listed)}, and {MAX_CLEANUP} are allowed"
                self._reader.fault((phase.value, MAX_CLEANUP), message, "too_large")
            for index, part in enumerate(listed[:MAX_CLEANUP]):
                step = steps.cleanup(f"{phase.value}[{index}]", (phase.value, index), part)
                found.append(replace(step, phase=phase))
        return tuple(found)

    def _wants(self, timeouts: Mapping[str, float], roles: tuple[HostRole, ...]) -> tuple[Requirements, str | None]:
        reader, root, refs = self._reader, self._root, set[str]()
        url, secret = resources.read_webhook(reader, root["webhook"]) if "webhook" in root else ("", None)
        wants = Requirements(
            roles=roles,
            volumes=tuple(self._known.volumes.values()),
            concurrency=resources.read_concurrency(reader, root["concurrency"]) if "concurrency" in root else None,
            queue_s=timeouts.get("queue", QUEUE_S),
            cleanup_s=timeouts.get("cleanup", CLEANUP_S),
            rollback=resources.read_rollback(reader, root.get("rollback", Rollback.NEVER.value)),
            hold=resources.read_hold(reader, root["hold_on_failure"], self._known.roles)
            if "hold_on_failure" in root
            else None,
            outputs=resources.read_outputs(reader, root.get("outputs", {}), refs),
            outputs_refs=tuple(sorted(refs)),
            webhook=Webhook(url, signed=secret is not None) if "webhook" in root else None,
        )
        return wants, secret

    def _secret_texts(self, webhook_secret: str | None) -> tuple[str, ...]:
        texts = [webhook_secret] if webhook_secret and resources.is_literal_secret(webhook_secret) else []
        for parameter in self._known.parameters.values():
            if parameter.hidden and parameter.default is not None:
                texts += _texts(parameter.default)
        return tuple(text for text in texts if text)


def _roles_of(roles: Iterable[HostRole], steps: Iterable[PlanStep]) -> tuple[HostRole, ...]:
    """The roles, extended by what their steps need: every host of a role must have all of it."""
    uses: dict[str, dict[str, None]] = {}
    targets: dict[str, dict[str, None]] = {}
    for step in (part for each in steps for own in (each, each.rollback) if own is not None for part in own.spread()):
        if step.role is not None and step.plugin and step.method:
            uses.setdefault(step.role, {})[f"{step.plugin}.{step.method}"] = None
            targets.setdefault(step.role, {}).update({} if step.target is None else {step.target: None})
    return tuple(
        replace(role, uses=tuple(uses.get(role.name, ())), targets=tuple(targets.get(role.name, ()))) for role in roles
    )


def _texts(value: Any) -> list[str]:
    """Every scalar in a value, as text."""
    if isinstance(value, dict):
        return [text for part in value.values() for text in _texts(part)]
    if isinstance(value, list):
        return [text for part in value for text in _texts(part)]
    return [written(value), str(value)] if value is not None and not isinstance(value, bool) else []


def _outputs_of(steps: Any) -> dict[str, frozenset[str] | None]:
    """The declared outputs of each step, before it is read; None if they are not known: of a nested plan, or if their
    declaration has a fault.
    """
    found: dict[str, frozenset[str] | None] = {}
    for name, step in steps.items() if isinstance(steps, dict) else ():
        outputs = step.get("outputs", {}) if isinstance(step, dict) and "plan" not in step else None
        is_known = isinstance(outputs, dict) and not misspelt(step, "outputs", (*METHOD, *GATE, *KINDS))
        found[name] = frozenset(outputs) if isinstance(outputs, dict) and is_known else None
    return found
