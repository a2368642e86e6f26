"""Looks up the methods that a plan's steps call: their schemas as agents publish them, or why there is none."""

import difflib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from proctor_common.errors import Fault, fault
from proctor_controller.db.hosts.candidates import FoundCandidate, find_candidates, known_methods
from proctor_controller.db.session import Session
from proctor_controller.domain.documents.json_schema import dotted
from proctor_controller.domain.hosts.placement import Placement
from proctor_controller.domain.hosts.requirements import HostRole
from proctor_controller.domain.plan.model import PlanStep
from proctor_controller.domain.runs.step import Phase

ANYWHERE = Placement(labels=())


@dataclass(frozen=True, slots=True)
class Method:
    """``schema``: of the parameters; None where nobody publishes the method, or agents do not agree about it.
    ``faults``: of the step that asks for it.
    """

    schema: Mapping[str, Any] | None
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True)
class Fitting:
    """The agents that a role may have; none where ``faults`` say why."""

    agents: tuple[str, ...]
    faults: tuple[Fault, ...] = ()


Wrong = dict[str, str]
"""What is wrong with a step, by its member."""


class Methods:
    """Looks each method up once for a place. ``group``: of the run."""

    def __init__(self, db: Session, group: str | None) -> None:
        self._db = db
        self._group = group
        self._known: dict[tuple[Any, ...], tuple[Mapping[str, Any] | None, Wrong]] = {}
        self._asked: dict[tuple[Placement, str, str, str | None], list[FoundCandidate]] = {}
        self._names: list[str] | None = None

    async def find(self, step: PlanStep, role: HostRole | None) -> Method:
        """The step's method where it is to run: on hosts of ``role``, else at its place; where that is not known,
        on any agent.
        """
        place = _place_of(step, role)
        group = None if role is None else role.group
        key = (place, group, role is None, step.plugin, step.method, step.target)
        if key not in self._known:
            self._known[key] = await self._look(step, place, role)
        schema, wrong = self._known[key]
        return Method(
            schema, tuple(fault("not_found", text, _path_of(step, name, role)) for name, text in wrong.items())
        )

    async def of_role(self, role: HostRole, *, reported: bool) -> Fitting:
        """The agents that a role may have, whatever runs on it: its hosts are leased all the same. ``reported``: a
        step's fault says already that nobody has the role's plugin.
        """
        root: list[str | int] = ["hosts", role.name]
        found = await self._in(role, role.plugin or "")
        if not found:
            return Fitting((), (fault("not_found", f"there is no {_role_words(role)}", dotted(root)),))
        able = [each.candidate.agent for each in found]
        lacking: list[str] = []
        for what, has in [each async for each in self._needs(role)]:
            if not has:
                # The faults of the steps that need it say that nobody has it.
                if what == role.plugin and not reported:
                    said = f"no {_role_words(role)} has the plugin {role.plugin}"
                    return Fitting((), (fault("not_found", said, dotted([*root, "plugin"])),))
                continue
            able = [agent for agent in able if agent in has]
            lacking.append(what)
        if not able:
            said = f"no {_role_words(role)} has all that it and its steps ask for: {', '.join(lacking)}"
            return Fitting((), (fault("not_found", f"{said}; make two roles of it", dotted(root)),))
        if len(able) < role.count:
            what = f" with {', '.join(lacking)}" if lacking else ""
            said = f"{role.count} are wanted, and there {'is' if len(able) == 1 else 'are'} {len(able)}"
            path = dotted([*root, "count"])
            return Fitting((), (fault("not_found", f"{said}: {_role_words(role)}{what}", path),))
        return Fitting(tuple(able))

    async def _in(
        self, role: HostRole, plugin: str, method: str = "", target: str | None = None
    ) -> list[FoundCandidate]:
        """The agents where the role is, with whether they have this."""
        found = await self._found(_place_of_role(role), plugin, method, target)
        return [each for each in found if role.group is None or role.group in each.groups]

    async def _found(self, place: Placement, plugin: str, method: str, target: str | None) -> list[FoundCandidate]:
        key = (place, plugin, method, target)
        if key not in self._asked:
            self._asked[key] = await find_candidates(
                self._db, place, plugin, method, group=self._group, target=target, with_spec=bool(method)
            )
        return self._asked[key]

    async def _needs(self, role: HostRole) -> AsyncIterator[tuple[str, frozenset[str]]]:
        """What the role and its steps ask for, each with the agents that have it, or may: those that have not connected
        yet.
        """
        if role.plugin is not None:
            found = await self._in(role, role.plugin)
            yield role.plugin, _agents(found, lambda each: each.candidate.has_plugin)
        for use in role.uses:
            plugin, _, method = use.partition(".")
            found = await self._in(role, plugin, method)
            yield use, _agents(found, lambda each: each.candidate.has_method)
        for target in role.targets:
            found = await self._in(role, role.plugin or "", target=target)
            yield f"target {target}", _agents(found, lambda each: each.has_target)

    async def _look(
        self, step: PlanStep, place: Placement | None, role: HostRole | None
    ) -> tuple[Mapping[str, Any] | None, Wrong]:
        if place is None:
            return await self._anywhere(step)
        found = await self._candidates(step, place, role)
        where = str(place) if role is None else _role_words(role)
        none = f"{where} has no" if place.host and role is None else f"no {where.removeprefix('an ')} has the"
        published = [each.spec.parameters for each in found if each.spec is not None]
        if published:
            able = [each for each in found if each.candidate.has_method]
            has_target = any(each.has_target for each in able)
            return published[0], {} if has_target else {"target": f"{none} target {step.target}"}
        if not found:
            wrong = {"runs_on": f"there is no {where.removeprefix('an ')}"}
        elif not any(each.candidate.registered for each in found):
            wrong = {"runs_on": f"{where} has not connected yet: its methods are not known"}
        else:
            has_plugin = any(each.candidate.has_plugin for each in found)
            lacking = f"plugin {step.plugin} has no method {step.method}"
            said = lacking if has_plugin else f"{none} plugin {step.plugin}"
            wrong = {"uses": f"{said}{await self._near(step)}"}
        schema, elsewhere = await self._anywhere(step)
        return schema, {**elsewhere, **wrong}

    async def _anywhere(self, step: PlanStep) -> tuple[Mapping[str, Any] | None, Wrong]:
        """The method as all agents know it that have it: what the step's other members are checked against where
        nobody knows its place.
        """
        found = await self._candidates(step, ANYWHERE, None)
        schemas = {json.dumps(each.spec.parameters, sort_keys=True) for each in found if each.spec is not None}
        if schemas:
            return json.loads(schemas.pop()) if len(schemas) == 1 else None, {}
        if any(each.candidate.has_plugin for each in found):
            return None, {"uses": f"plugin {step.plugin} has no method {step.method}{await self._near(step)}"}
        return None, {"uses": f"no agent has the plugin {step.plugin}{await self._near(step)}"}

    async def _candidates(self, step: PlanStep, place: Placement, role: HostRole | None) -> list[FoundCandidate]:
        found = await self._found(place, step.plugin, step.method, step.target)
        return [each for each in found if role is None or role.group is None or role.group in each.groups]

    async def _near(self, step: PlanStep) -> str:
        """``; did you mean …?`` where an agent has a method of a similar name."""
        if self._names is None:
            self._names = await known_methods(self._db, self._group)
        near = difflib.get_close_matches(f"{step.plugin}.{step.method}", self._names, 1)
        return f"; did you mean {near[0]}?" if near else ""


def _path_of(step: PlanStep, member: str, role: HostRole | None) -> str:
    """Where the fault stands in the document: that of a role is the role's, whoever runs on it; a rollback runs where
    its step ran.
    """
    if member == "runs_on" and role is not None:
        return dotted(["hosts", role.name])
    path = step.path[:-1] if member == "runs_on" and step.phase is Phase.ROLLBACK else step.path
    return dotted([*path, member])


def _agents(found: list[FoundCandidate], has: Callable[[FoundCandidate], bool]) -> frozenset[str]:
    return frozenset(each.candidate.agent for each in found if has(each) or not each.candidate.registered)


def _role_words(role: HostRole) -> str:
    return f"host for the role {role.name} ({_words(role)})"


def _words(role: HostRole) -> str:
    """What a role asks for."""
    asked = {"group": role.group, "host": role.host}
    asked |= {f"label {name}": value for name, value in (role.labels or {}).items()}
    return ", ".join(f"{name} {value}" for name, value in asked.items() if value is not None) or "any"


def _place_of(step: PlanStep, role: HostRole | None) -> Placement | None:
    """Where to look; None where the document does not say it yet."""
    if role is not None:
        return _place_of_role(role)
    return None if step.place == Placement() else step.place


def _place_of_role(role: HostRole) -> Placement:
    labels = tuple(sorted((role.labels or {}).items()))
    return Placement(host=role.host) if role.host is not None else Placement(labels=labels)
