"""A test plan: the part of the language that runs today, read with all its faults at once. Pure."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from proctor_common.ids import GROUP_NAME, HOST_NAME, PLAN_NAME, PLUGIN_NAME, STEP_NAME
from proctor_controller.domain.graph import find_cycle
from proctor_controller.domain.parameters import MAX_ENV
from proctor_controller.domain.placement import Place
from proctor_controller.domain.schemas import Fault, dotted
from proctor_controller.domain.step import Condition, Retry, RetryOn
from proctor_controller.domain.yaml_text import Document

VERSIONS = ("2026-12-01",)
MAX_STEPS = 1000
MAX_SECONDS = 30 * 86_400.0
MAX_FAULTS = 100
MAX_ATTEMPTS = 100
MAX_LABELS = 32
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)\Z")
_UNIT = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,126}\Z")

_PLAN = {"testplan_version", "name", "description", "timeouts", "defaults", "steps"}
_PLAN_LATER = {
    "parameters", "hosts", "volumes", "concurrency", "on_failure", "always", "rollback", "hold_on_failure", "outputs",
    "secrets", "webhook",
}  # fmt: skip
_STEP = {"uses", "with", "runs_on", "depends_on", "timeout", "grace", "retry", "idempotent", "env", "target"}
_STEP_LATER = {
    "outputs", "rollback", "if", "matrix", "strategy", "failed_when", "until", "expect", "record", "gate", "plan",
    "artefacts", "secrets",
}  # fmt: skip
_TIMEOUTS, _TIMEOUTS_LATER = {"run"}, {"queue", "cleanup"}
_DEFAULTS = {"timeout", "grace", "target"}
_HOT = {"get_param", "get_attr", "str_replace", "list_join"}


@dataclass(frozen=True, slots=True)
class PlanStep:
    """One step of a plan. Times in seconds."""

    name: str
    plugin: str
    method: str
    place: Place
    parameters: Mapping[str, Any] = field(default_factory=dict)
    depends_on: tuple[tuple[str, Condition], ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    target: str | None = None
    timeout_s: float = 1800.0
    grace_s: float = 10.0
    retry: Retry = field(default_factory=Retry)
    idempotent: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan that may be run. ``run_timeout_s``: None where it sets none."""

    name: str
    steps: tuple[PlanStep, ...]
    description: str = ""
    run_timeout_s: float | None = None


class BadPlan(Exception):
    """The plan has faults: all of them, each with path, line and column."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__(faults[0]["message"])
        self.faults = faults


def read_plan(document: Document) -> Plan:
    """The plan in a document. Raises BadPlan."""
    return _Reader(document).read()


class _Reader:
    def __init__(self, document: Document) -> None:
        self._document = document
        self.faults: list[Fault] = []

    def fault(self, path: Iterable[Any], message: str, code: str = "invalid") -> None:
        where = dotted(list(path))
        line, column = self._document.places.get(where, (None, None))
        if len(self.faults) < MAX_FAULTS:
            self.faults.append({"code": code, "message": message, "path": where, "line": line, "column": column})

    def read(self) -> Plan:
        root = self._document.value
        if not isinstance(root, dict):
            self.fault((), "a test plan is a mapping")
            raise BadPlan(self.faults)
        self._members(root, (), _PLAN, _PLAN_LATER)
        self._version(root.get("testplan_version"))
        name = self._name(root.get("name"))
        description = self._text(root.get("description", ""), ("description",))
        timeouts = self._mapping(root.get("timeouts", {}), ("timeouts",), _TIMEOUTS, _TIMEOUTS_LATER)
        limits = {key: self._duration(value, ("timeouts", key)) for key, value in timeouts.items()}
        defaults = self._mapping(root.get("defaults", {}), ("defaults",), _DEFAULTS)
        steps = self._steps(root.get("steps"), defaults)
        if self.faults:
            raise BadPlan(self.faults)
        return Plan(name, steps, description, limits.get("run"))

    # -- parts ----------------------------------------------------------------------------------------------------

    def _members(self, mapping: Mapping[str, Any], path: tuple[Any, ...], known: set[str], later: Set[str]) -> None:
        for key in mapping:
            if key in later:
                self.fault((*path, key), f"{key} is not supported yet", "not_supported")
            elif key not in known:
                near = difflib.get_close_matches(key[:60], sorted(known | later), 1)
                hint = f"; did you mean {near[0]}?" if near else ""
                self.fault((*path, key), f"there is no member {key[:60]!r} here{hint}", "unknown_member")

    def _mapping(
        self, value: Any, path: tuple[Any, ...], known: set[str] | None = None, later: Set[str] = frozenset()
    ) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.fault(path, "must be a mapping")
            return {}
        if known is not None:
            self._members(value, path, known, later)
            return {key: part for key, part in value.items() if key in known}
        return value

    def _version(self, version: Any) -> None:
        if version is None:
            self.fault((), "testplan_version is missing", "missing")
        elif version not in VERSIONS:
            known = ", ".join(VERSIONS)
            self.fault(("testplan_version",), f"this version is not known here; known: {known}", "unknown_version")

    def _name(self, name: Any) -> str:
        if name is None:
            self.fault((), "name is missing", "missing")
        elif not isinstance(name, str) or not PLAN_NAME.match(name):
            self.fault(("name",), "must be 1 to 63 letters, digits, dots, dashes or underscores")
        return str(name)

    def _text(self, value: Any, path: tuple[Any, ...], pattern: re.Pattern[str] | None = None) -> str:
        if not isinstance(value, str) or (pattern is not None and not pattern.match(value)):
            self.fault(
                path, "must be text" if not isinstance(value, str) else f"must match {pattern and pattern.pattern}"
            )
            return ""
        return value

    def _duration(self, value: Any, path: tuple[Any, ...], *, least: float = 0.001) -> float:
        seconds: float | None = None
        if isinstance(value, int | float) and not isinstance(value, bool):
            seconds = float(value)
        elif isinstance(value, str) and (found := _DURATION.match(value)):
            seconds = float(found[1]) * _UNIT[found[2]]
        if seconds is None:
            self.fault(path, "must be a duration: a number of seconds, or one with ms, s, m, h or d")
        elif not least <= seconds <= MAX_SECONDS:
            self.fault(path, f"must be {least:g} s to 30 d")
        else:
            return seconds
        return 1.0

    def _steps(self, value: Any, defaults: Mapping[str, Any]) -> tuple[PlanStep, ...]:
        path = ("steps",)
        if value is None:
            self.fault((), "steps is missing", "missing")
            return ()
        if not isinstance(value, dict) or not value:
            self.fault(path, "must be a mapping of at least one step")
            return ()
        if len(value) > MAX_STEPS:
            self.fault(path, f"has more than {MAX_STEPS} steps", "too_large")
            return ()
        steps = tuple(self._step(name, step, value, defaults) for name, step in value.items())
        edges = {step.name: [source for source, _ in step.depends_on] for step in steps}
        cycle = find_cycle(edges)
        if cycle:
            self.fault((*path, cycle[0], "depends_on"), f"goes round in a circle: {' -> '.join(cycle)}", "cycle")
        return steps

    def _step(self, name: str, value: Any, all_steps: Mapping[str, Any], defaults: Mapping[str, Any]) -> PlanStep:
        path = ("steps", name)
        if not STEP_NAME.match(name):
            self.fault(path, "a step's name is 1 to 63 letters, digits, dashes or underscores, no digit or dash first")
        step = self._mapping(value, path)
        self._members(step, path, _STEP, _STEP_LATER)
        plugin, method = self._uses(step, path)

        def default(member: str, otherwise: Any, read: Callable[..., Any], **options: Any) -> Any:
            if member in step:
                return read(step[member], (*path, member), **options)
            if member in defaults:
                return read(defaults[member], ("defaults", member), **options)
            return otherwise

        idempotent = step.get("idempotent", False)
        if not isinstance(idempotent, bool):
            self.fault((*path, "idempotent"), "must be true or false")
        return PlanStep(
            name=name,
            plugin=plugin,
            method=method,
            place=self._place(step, path),
            parameters=self._with(step.get("with", {}), (*path, "with")),
            depends_on=self._depends_on(step.get("depends_on", []), (*path, "depends_on"), name, all_steps),
            env=self._env(step.get("env", {}), (*path, "env")),
            target=default("target", None, self._text),
            timeout_s=default("timeout", 1800.0, self._duration),
            grace_s=default("grace", 10.0, self._duration, least=0.0),
            retry=self._retry(step["retry"], (*path, "retry")) if "retry" in step else Retry(),
            idempotent=idempotent is True,
        )

    def _uses(self, step: Mapping[str, Any], path: tuple[Any, ...]) -> tuple[str, str]:
        uses = step.get("uses")
        if uses is None:
            if not step.keys() & {"gate", "plan"}:
                self.fault(path, "uses is missing", "missing")
            return "", ""
        plugin, _, method = uses.partition(".") if isinstance(uses, str) else ("", "", "")
        if not PLUGIN_NAME.match(plugin) or not PLUGIN_NAME.match(method):
            self.fault((*path, "uses"), "must be plugin.method")
        return plugin, method

    def _place(self, step: Mapping[str, Any], path: tuple[Any, ...]) -> Place:
        where = (*path, "runs_on")
        if "runs_on" not in step:
            self.fault(path, "runs_on is missing", "missing")
            return Place()
        value = step["runs_on"]
        if isinstance(value, str):
            self.fault(where, "roles are not supported yet; give {host: …}, {group: …} or {labels: …}", "not_supported")
            return Place()
        place = self._mapping(value, where, {"host", "group", "labels"})
        if len(place) != 1:
            self.fault(where, "give exactly one of host, group and labels")
            return Place()
        if "host" in place:
            return Place(host=self._text(place["host"], (*where, "host"), HOST_NAME))
        if "group" in place:
            return Place(group=self._text(place["group"], (*where, "group"), GROUP_NAME))
        labels = self._mapping(place["labels"], (*where, "labels"))
        if not 1 <= len(labels) <= MAX_LABELS:
            self.fault((*where, "labels"), f"give 1 to {MAX_LABELS} labels")
        texts = {key: self._text(label, (*where, "labels", key)) for key, label in labels.items()}
        return Place(labels=tuple(sorted(texts.items())))

    def _with(self, value: Any, path: tuple[Any, ...]) -> dict[str, Any]:
        mapping = self._mapping(value, path)
        literal = self._literal(mapping, path)
        return literal if isinstance(literal, dict) else {}

    def _literal(self, value: Any, path: tuple[Any, ...]) -> Any:
        """The value without expressions, which are not supported yet; ``$${{`` is a literal ``${{``."""
        if isinstance(value, str):
            if "${{" in value.replace("$${{", ""):
                self.fault(path, "expressions are not supported yet", "not_supported")
            return value.replace("$${{", "${{")
        if isinstance(value, list):
            return [self._literal(item, (*path, index)) for index, item in enumerate(value)]
        if isinstance(value, dict):
            if len(value) == 1 and value.keys() & _HOT:
                self.fault(path, f"{next(iter(value))} is not supported yet", "not_supported")
            return {key: self._literal(item, (*path, key)) for key, item in value.items()}
        return value

    def _env(self, value: Any, path: tuple[Any, ...]) -> dict[str, str]:
        mapping = self._mapping(value, path)
        if len(mapping) > MAX_ENV:
            self.fault(path, f"has more than {MAX_ENV} names", "too_large")
            return {}
        env: dict[str, str] = {}
        for name, item in mapping.items():
            if not _ENV_NAME.match(name):
                self.fault((*path, name), "is not a name of an environment variable")
            if isinstance(item, str | int | float):
                text = str(item).lower() if isinstance(item, bool) else str(item)
                env[name] = str(self._literal(text, (*path, name)))
                if "\0" in env[name]:
                    self.fault((*path, name), "must not hold a NUL character")
            else:
                self.fault((*path, name), "must be text")
        return env

    def _depends_on(
        self, value: Any, path: tuple[Any, ...], name: str, all_steps: Mapping[str, Any]
    ) -> tuple[tuple[str, Condition], ...]:
        if isinstance(value, list):
            pairs = [(item, Condition.SUCCEEDED.value, (*path, index)) for index, item in enumerate(value)]
        elif isinstance(value, dict):
            pairs = [(item, condition, (*path, item)) for item, condition in value.items()]
        else:
            self.fault(path, "must be a list of steps, or a mapping of steps to succeeded, failed or completed")
            return ()
        found: dict[str, Condition] = {}
        for source, condition, where in pairs:
            if not isinstance(source, str) or source not in all_steps:
                self.fault(where, f"there is no step {str(source)[:60]!r}", "unknown_step")
            elif source == name:
                self.fault(where, "a step cannot wait for itself", "cycle")
            elif source in found:
                self.fault(where, f"names the step {source!r} twice")
            elif condition not in list(Condition):
                self.fault(where, "must be succeeded, failed or completed")
            else:
                found[source] = Condition(condition)
        return tuple(found.items())

    def _retry(self, value: Any, path: tuple[Any, ...]) -> Retry:
        retry = self._mapping(value, path, {"attempts", "delay", "backoff", "max_delay", "on"})
        attempts = retry.get("attempts", 1)
        if isinstance(attempts, bool) or not isinstance(attempts, int) or not 1 <= attempts <= MAX_ATTEMPTS:
            self.fault((*path, "attempts"), f"must be a number from 1 to {MAX_ATTEMPTS}")
            attempts = 1
        backoff = retry.get("backoff", 1)
        if isinstance(backoff, bool) or not isinstance(backoff, int | float) or not 1 <= backoff <= 100:
            self.fault((*path, "backoff"), "must be a number from 1 to 100")
            backoff = 1
        words = retry.get("on", [word.value for word in Retry().on])
        if not isinstance(words, list) or not all(isinstance(word, str) and word in list(RetryOn) for word in words):
            self.fault((*path, "on"), f"must be a list of {', '.join(RetryOn)}")
            words = []
        return Retry(
            attempts=attempts,
            delay_s=self._duration(retry.get("delay", 0), (*path, "delay"), least=0.0),
            backoff=float(backoff),
            max_delay_s=self._duration(retry.get("max_delay", 3600), (*path, "max_delay"), least=0.0),
            on=frozenset(RetryOn(word) for word in words if word in list(RetryOn)),
        )
