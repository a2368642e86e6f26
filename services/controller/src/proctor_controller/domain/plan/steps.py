"""Steps of a plan: method calls, gates, nested plans. Pure."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from proctor_common.ids import PLUGIN_NAME, STEP_NAME
from proctor_common.states import Role as TokenRole
from proctor_controller.domain.documents.method_parameters import MAX_ENV
from proctor_controller.domain.documents.spelled import is_scalar
from proctor_controller.domain.documents.spelling import hint, misspelt
from proctor_controller.domain.expressions.evaluate import ExpressionFault, fill
from proctor_controller.domain.expressions.text import has_expression
from proctor_controller.domain.plan import matrix, resources, shell_text, verdict
from proctor_controller.domain.plan.hot import is_hot
from proctor_controller.domain.plan.model import Path, PlanStep, RunsOn
from proctor_controller.domain.plan.places import NOWHERE, read_runs_on
from proctor_controller.domain.plan.reader import Unknown
from proctor_controller.domain.plan.templates import BEFORE, Names, Templates, secrets_in
from proctor_controller.domain.runs.step import Condition, Phase, Retry, StepKind
from proctor_controller.domain.runs.step_rules import Gate, NestedPlan, Rules

DAY = 86_400.0
ENV_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,126}\Z")
CHILD = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}(@[0-9]{1,9})?\Z")
_BAD_NAME = "a step's name is 1 to 63 letters, digits, dashes or underscores, no digit or dash first"

CALL = ("uses", "with", "runs_on", "timeout", "grace", "retry", "idempotent", "env", "target", "secrets")
METHOD = (
    *CALL, "depends_on", "if", "matrix", "strategy", "outputs", "rollback", "failed_when", "until", "expect", "record",
    "artefacts",
)  # fmt: skip
GATE = ("gate", "depends_on", "if", "timeout")
PLAN = ("plan", "with", "depends_on", "if", "matrix", "strategy", "timeout", "retry", "outputs")
KINDS = ("uses", "gate", "plan")
OF_KIND = {"uses": (StepKind.METHOD, METHOD), "gate": (StepKind.GATE, GATE), "plan": (StepKind.PLAN, PLAN)}
ROLLBACK = ("uses", "with", "timeout", "grace", "retry", "idempotent", "env", "target", "secrets")
CLEANUP = (*CALL, "if")


class Defaults:
    """``defaults`` of the plan, each read once."""

    def __init__(self, reader: Templates, value: Any) -> None:
        path: Path = ("defaults",)
        given = reader.mapping(value, path, ("timeout", "grace", "target"))
        early = {key: reader.early(part, (*path, key)) for key, part in given.items()}
        known = {key: part for key, part in early.items() if not isinstance(part, Unknown)}
        self.timeout = reader.duration(known["timeout"], (*path, "timeout")) if "timeout" in known else 1800.0
        self.grace = reader.duration(known["grace"], (*path, "grace"), least=0.0) if "grace" in known else 10.0
        # A faulty default has no effect on the steps.
        self.target = (reader.text(known["target"], (*path, "target")) or None) if "target" in known else None


class Steps:
    """Reads steps one by one. ``names``: of all main steps, for ``depends_on``."""

    def __init__(self, reader: Templates, defaults: Defaults, names: Mapping[str, Any]) -> None:
        self._reader = reader
        self._defaults = defaults
        self._names = names

    def main(self, name: str, value: Any) -> PlanStep:
        """A step under ``steps``."""
        reader, path = self._reader, ("steps", name)
        if not STEP_NAME.match(name):
            reader.fault(path, _BAD_NAME)
        step = reader.mapping(value, path)
        kinds = [word for word in KINDS if word in step]
        if len(kinds) > 1 and not reader.faults.repeats(path):
            reader.fault((*path, kinds[1]), f"a step has one of uses, gate and plan; this one has {kinds[0]} too")
        if not kinds and not any(misspelt(value, word, (*METHOD, *KINDS)) for word in ("gate", "plan")):
            reader.missing(value, "uses", path, (*METHOD, *KINDS), "uses is missing (or gate, or plan)")
        kind, members = OF_KIND[kinds[0] if kinds else "uses"]
        others = [word for each in kinds[1:] for word in OF_KIND[each][1]]
        reader.members(step, path, (*members, *others, *(kinds or KINDS)))
        keys = matrix.matrix_keys(step["matrix"]) if "matrix" in step else frozenset()
        names = Names(BEFORE, matrix=None if misspelt(step, "matrix", members) else keys, step=name)
        for other in kinds[1:]:
            # Read its members too, so that their faults are reported with this one.
            strange = {key: part for key, part in step.items() if key in OF_KIND[other][1] and key not in members}
            if other == "gate":
                self._gate(strange, path, name)
            else:
                self._child(strange, path, name, names)
        step = {key: part for key, part in step.items() if key in members}
        cells = matrix.read_matrix(reader, step["matrix"], (*path, "matrix")) if "matrix" in step else None
        if kind is StepKind.METHOD:
            read = self._call(step, path, name, names, cells=cells, written=value if kinds else None)
        else:
            read = self._gate(step, path, name) if kind is StepKind.GATE else self._child(step, path, name, names)
        return self._around(replace(read, cells=cells), step, path, names)

    def rollback(self, of: PlanStep, value: Any, names: Names) -> PlanStep:
        """What undoes a step; it runs where the step ran."""
        path = (*of.path, "rollback")
        if not self._is_method(value, path):
            return PlanStep(f"rollback.{of.name}", path, phase=Phase.ROLLBACK, cells=of.cells)
        step = self._reader.mapping(value, path, ROLLBACK)
        self._reader.missing(value, "uses", path, ROLLBACK)
        names = Names(BEFORE | {"self"}, matrix=names.matrix)
        read = self._call(step, path, f"rollback.{of.name}", names, of=of)
        return replace(read, phase=Phase.ROLLBACK, cells=of.cells)

    def cleanup(self, name: str, path: Path, value: Any) -> PlanStep:
        """A step under ``on_failure`` or ``always``."""
        if not self._is_method(value, path):
            return PlanStep(name, path)
        step = self._reader.mapping(value, path, CLEANUP)
        self._reader.missing(value, "uses", path, CLEANUP)
        names = Names(BEFORE - {"matrix"})
        read = self._call(step, path, name, names, written=value)
        if "if" not in step:
            return read
        refs = set(read.rules.refs) if read.rules else set()
        condition = self._reader.source(step["if"], (*path, "if"), names, refs)
        return _with_rules(read, refs, condition=condition)

    def _is_method(self, value: Any, path: Path) -> bool:
        """Whether a rollback or cleanup step is a method, as it must be; a gate or a plan is one fault."""
        strange = [word for word in ("gate", "plan") if isinstance(value, dict) and word in value]
        if strange:
            self._reader.fault((*path, strange[0]), f"no {strange[0]} runs here, only methods: uses", "unknown_member")
        return not strange

    # -- kinds ----------------------------------------------------------------------------------------------------

    def _call(
        self,
        step: Mapping[str, Any],
        path: Path,
        name: str,
        names: Names,
        *,
        of: PlanStep | None = None,
        cells: matrix.Cells | None = None,
        written: Any = None,
    ) -> PlanStep:
        """``of``: the step with which it runs; ``written``: the step as written, if it must say where it runs."""
        reader, refs = self._reader, set[str]()
        plugin, method = self._uses(step, path)
        wheres = self._runs_on(step, path, written, names, cells) if of is None else of.wheres or (of.where,)
        resources.read_secrets(reader, step.get("secrets", {}), (*path, "secrets"))
        given = reader.mapping(step.get("with", {}), (*path, "with"))
        hidden = replace(names, hidden=True)
        parameters = self._with(given, (*path, "with"), hidden, refs)
        for where in shell_text.find_values(parameters):
            reader.fault((*path, "with", *where), shell_text.MESSAGE, shell_text.CODE)
        env = self._env(step.get("env", {}), (*path, "env"), hidden, refs)
        with_template, env_template = _has_expression(parameters), _has_expression(env)
        rules = Rules(
            parameters=parameters if with_template else None,
            env=env if env_template else None,
            refs=tuple(sorted(refs)),
            secrets={name: reader.known.secrets[name] for name in secrets_in((parameters, env), reader.known.secrets)},
        )
        retry = verdict.read_retry(reader, step["retry"], (*path, "retry")) if "retry" in step else Retry()
        return PlanStep(
            name=name,
            path=path,
            plugin=plugin,
            method=method,
            place=wheres[0].place,
            role=wheres[0].role,
            role_index=wheres[0].role_index,
            each=wheres[0].each,
            wheres=wheres if len(wheres) > 1 else (),
            parameters=parameters if with_template else _plain(parameters),
            is_literal=not with_template,
            env={} if env_template else _plain(env),
            target=self._default(step, path, "target", self._defaults.target, reader.text),
            timeout_s=self._default(step, path, "timeout", self._defaults.timeout, reader.duration),
            grace_s=self._default(step, path, "grace", self._defaults.grace, reader.duration, least=0.0),
            retry=retry,
            idempotent=reader.flag(step.get("idempotent", False), (*path, "idempotent")),
            rules=rules if with_template or env_template else None,
        )

    def _gate(self, step: Mapping[str, Any], path: Path, name: str) -> PlanStep:
        reader, where = self._reader, (*path, "gate")
        gate = reader.mapping({} if step["gate"] is None else step["gate"], where, ("roles", "timeout"))
        roles = gate.get("roles", [TokenRole.ADMIN.value])
        if not isinstance(roles, list) or not roles:
            reader.fault((*where, "roles"), f"must be a list of {', '.join(TokenRole)}")
            roles = []
        words = tuple(reader.choice(role, (*where, "roles", index), TokenRole) for index, role in enumerate(roles))
        seconds = self._default(gate, where, "timeout", None, reader.duration)
        limit = self._default(step, path, "timeout", seconds or DAY, reader.duration)
        return PlanStep(
            name=name, path=path, kind=StepKind.GATE, timeout_s=limit, rules=Rules(gate=Gate(words, seconds or limit))
        )

    def _child(self, step: Mapping[str, Any], path: Path, name: str, names: Names) -> PlanStep:
        reader, refs = self._reader, set[str]()
        plan = reader.spelled(reader.early(step["plan"], (*path, "plan")), (*path, "plan"))
        if isinstance(plan, Unknown):
            plan = ""
        elif not isinstance(plan, str) or not CHILD.match(plan):
            reader.fault((*path, "plan"), "must be the name of a stored plan, or name@version")
            plan = ""
        hidden = replace(names, hidden=True)
        given = self._with(reader.mapping(step.get("with", {}), (*path, "with")), (*path, "with"), hidden, refs)
        retry = verdict.read_retry(reader, step["retry"], (*path, "retry")) if "retry" in step else Retry()
        return PlanStep(
            name=name,
            path=path,
            kind=StepKind.PLAN,
            parameters=given,
            is_literal=not _has_expression(given),
            timeout_s=self._default(step, path, "timeout", 7 * DAY, reader.duration),
            retry=retry,
            rules=Rules(
                child=NestedPlan(plan, given),
                refs=tuple(sorted(refs)),
                secrets={name: reader.known.secrets[name] for name in secrets_in(given, reader.known.secrets)},
            ),
        )

    def _around(self, read: PlanStep, step: Mapping[str, Any], path: Path, names: Names) -> PlanStep:
        """The members around a call: edges, condition, matrix, verdict."""
        reader = self._reader
        refs = set(read.rules.refs) if read.rules else set()
        rules: dict[str, Any] = {}
        ended = verdict.after(names)
        # If the place is unknown, it may be a role.
        has_role = all(where.role is not None or where == NOWHERE for where in read.wheres or (read.where,))
        before = names.roots if has_role else names.roots - {"host"}
        allowed = {"if": Names(before, matrix=names.matrix, step=names.step), "failed_when": ended, "until": ended}
        for word, member in (("if", "condition"), ("failed_when", "failed_when"), ("until", "until")):
            if word in step:
                rules[member] = reader.source(step[word], (*path, word), allowed[word], refs, read.cells)
        if "outputs" in step:
            rules["outputs"] = verdict.read_step_outputs(reader, step["outputs"], (*path, "outputs"), ended, refs)
        if "expect" in step:
            rules["expect"] = verdict.read_expect(reader, step["expect"], (*path, "expect"))
        if "record" in step:
            at_end = verdict.after(names, reader.known.outputs.get(read.name))
            rules["record"] = verdict.read_record(reader, step["record"], (*path, "record"), at_end, refs)
        if "artefacts" in step:
            rules["artefacts"] = verdict.read_artefacts(reader, step["artefacts"], (*path, "artefacts"), names, refs)
        depends = self._depends_on(step.get("depends_on", []), (*path, "depends_on"), read.name)
        known = {source for source, _ in depends}
        implied = tuple((source, Condition.SUCCEEDED) for source in sorted(refs - known))
        parallel, fast = None, False
        if "strategy" in step:
            parallel, fast = matrix.read_strategy(reader, step["strategy"], (*path, "strategy"))
        changed = replace(read, depends_on=(*depends, *implied), max_parallel=parallel, fail_fast=fast)
        changed = _with_rules(changed, refs, **rules) if rules or refs else changed
        if "rollback" in step:
            return replace(changed, rollback=self.rollback(changed, step["rollback"], names))
        return changed

    # -- members --------------------------------------------------------------------------------------------------

    def _default(
        self, step: Mapping[str, Any], path: Path, member: str, otherwise: Any, read: Callable[..., Any], **options: Any
    ) -> Any:
        if member not in step:
            return otherwise
        value = self._reader.early(step[member], (*path, member))
        return otherwise if isinstance(value, Unknown) else read(value, (*path, member), **options)

    def _with(self, given: Mapping[str, Any], path: Path, names: Names, refs: set[str]) -> dict[str, Any]:
        """The parameters, one by one: the mapping itself is never a function of Heat."""
        return {name: self._reader.template(part, (*path, name), names, refs) for name, part in given.items()}

    def _uses(self, step: Mapping[str, Any], path: Path) -> tuple[str, str]:
        uses = step.get("uses")
        if "uses" not in step:
            return "", ""
        plugin, _, method = uses.partition(".") if isinstance(uses, str) else ("", "", "")
        if not PLUGIN_NAME.match(plugin) or not PLUGIN_NAME.match(method):
            self._reader.fault((*path, "uses"), "must be plugin.method")
            return "", ""
        return plugin, method

    def _runs_on(
        self, step: Mapping[str, Any], path: Path, written: Any, names: Names, cells: matrix.Cells | None
    ) -> tuple[RunsOn, ...]:
        reader, where = self._reader, (*path, "runs_on")
        if "runs_on" not in step:
            message = "runs_on is missing: a role, role[i], each role, or {host: …}, {group: …}"
            reader.missing(written, "runs_on", path, METHOD if path[0] == "steps" else CLEANUP, message)
            return (NOWHERE,)
        return read_runs_on(reader, step["runs_on"], where, keys=names.matrix, cells=cells)

    def _env(self, value: Any, path: Path, names: Names, refs: set[str]) -> dict[str, str]:
        reader = self._reader
        mapping = reader.mapping(value, path)
        for name in list(mapping)[MAX_ENV : MAX_ENV + 1]:
            message = f"is one name too many: there are {len(mapping)}, and {MAX_ENV} are allowed"
            reader.fault((*path, name), message, "too_large")
        env: dict[str, str] = {}
        for name, item in mapping.items():
            where = (*path, name)
            if not ENV_NAME.match(name):
                reader.fault(where, "is not a name of an environment variable")
            if is_scalar(item):
                env[name] = reader.template(reader.spelled(item, where), where, names, refs)
                if "\0" in env[name]:
                    reader.fault(where, "must not hold a NUL character")
            elif is_hot(item):
                env[name] = str(reader.template(item, where, names, refs))
            else:
                reader.fault(where, "must be text, a number, true or false, or one of Heat's functions")
        return env

    def _depends_on(self, value: Any, path: Path, name: str) -> tuple[tuple[str, Condition], ...]:
        reader = self._reader
        if isinstance(value, list):
            pairs = [(item, Condition.SUCCEEDED.value, (*path, index)) for index, item in enumerate(value)]
        elif isinstance(value, dict):
            pairs = [(item, condition, (*path, item)) for item, condition in value.items()]
        else:
            reader.fault(path, "must be a list of steps, or a mapping of steps to succeeded, failed or completed")
            return ()
        found: dict[str, Condition] = {}
        for source, condition, where in pairs:
            if reader.faults.is_full:
                break
            if not isinstance(source, str) or source not in self._names:
                near = hint(source, self._names) if isinstance(source, str) else ""
                reader.fault(where, f"there is no step {str(source)[:60]!r}{near}", "unknown_step")
            elif source == name:
                reader.fault(where, "a step cannot wait for itself", "cycle")
            elif source in found:
                reader.fault(where, f"names the step {source!r} twice")
            else:
                # An invalid condition has no further effect.
                is_one = isinstance(condition, str) and condition in list(Condition)
                found[source] = Condition(condition) if is_one else Condition.COMPLETED
                if not is_one:
                    reader.choice(condition, where, Condition)
        return tuple(found.items())


def _with_rules(step: PlanStep, refs: set[str], **changes: Any) -> PlanStep:
    return replace(step, rules=replace(step.rules or Rules(), refs=tuple(sorted(refs)), **changes))


def _has_expression(template: Any) -> bool:
    try:
        return has_expression(template)
    except ExpressionFault:
        return False


def _plain(template: Any) -> Any:
    """A template without expressions as literal text: ``$${{`` becomes ``${{``."""
    try:
        return fill(template, {})
    except ExpressionFault:
        return template
