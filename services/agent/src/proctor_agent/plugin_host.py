"""The plugin side of the agent for its core (attempt.Workbench): methods by name, called on targets."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from proctor_agent.artefacts import find_artefacts, read_piece
from proctor_agent.attempt import Attempt, Outcome, ProcessGroup
from proctor_agent.loader import LoadedMethod, LoadedPlugins
from proctor_agent.plugin import Context, Failed, MethodFault, Result
from proctor_agent.schema import faults_of
from proctor_agent.ssh import SshFault, Targets, end_tree, find_left
from proctor_common.messages.base import JsonObject
from proctor_common.messages.events import MethodError, PluginSpec
from proctor_common.states import StepResult


class PluginWorkbench:
    """Loaded plugins over SSH targets. Use from the agent's main loop."""

    def __init__(self, loaded: LoadedPlugins, targets: Targets) -> None:
        self._loaded = loaded
        self._targets = targets
        self._specs = {name: plugin.spec for name, plugin in loaded.plugins.items()}

    @property
    def plugins(self) -> Mapping[str, PluginSpec]:
        return self._specs

    @property
    def load_errors(self) -> Mapping[str, str]:
        return self._loaded.errors

    def check(self, plugin: str, method: str, target: str | None, parameters: JsonObject) -> str:
        try:
            found = self._find(plugin, method)
            self._targets.find(target)
            found.model.model_validate(parameters)
        except ValidationError as fault:
            return f"parameters of {plugin}.{method}: {faults_of(fault)}"
        except (MethodFault, SshFault) as fault:
            return fault.message
        return ""

    async def call(self, attempt: Attempt, plugin: str, method: str, parameters: JsonObject) -> Outcome:
        try:
            found = self._find(plugin, method)
            context = Context(attempt, self._targets, self._targets.find(attempt.target))
            return _passed(await _call(found, context, parameters))
        except Failed as verdict:
            return _failed(verdict)
        except ValidationError as fault:
            return _error("bad_parameters", f"parameters of {plugin}.{method}: {faults_of(fault)}", {})
        except (MethodFault, SshFault) as fault:
            return _error(fault.kind, fault.message, fault.data)

    async def find_artefacts(self, attempt: Attempt, patterns: Sequence[str]) -> tuple[list[JsonObject], list[str]]:
        try:
            context = Context(attempt, self._targets, self._targets.find(attempt.target))
            found, missing = await find_artefacts(context, patterns)
        except (MethodFault, SshFault) as fault:
            raise LookupError(fault.message) from None
        return [artefact.model_dump() for artefact in found], missing

    async def read_artefact(self, target: str | None, path: str, offset: int, length: int) -> tuple[int, bytes]:
        try:
            return await read_piece(self._targets, self._targets.find(target).name, path, offset, length)
        except SshFault as fault:
            raise OSError(fault.message) from None

    async def stop_tree(
        self, target: str, groups: Sequence[ProcessGroup], marker: str, grace_s: float, *, lost: bool = False
    ) -> bool | None:
        try:
            extra_s = self._targets.find(target).reconnect_timeout if lost else None
            return await end_tree(self._targets, target, groups, marker, grace_s, extra_s=extra_s)
        except SshFault:
            # The target is no longer configured.
            return None

    async def find_left(self, target: str, groups: Sequence[ProcessGroup], marker: str) -> list[str] | None:
        return await find_left(self._targets, target, groups, marker)

    @property
    def held_runs(self) -> set[str]:
        return self._targets.held_runs

    def end_runs(self, runs: Sequence[str]) -> None:
        self._targets.end_runs(runs)

    async def close(self) -> None:
        await self._targets.close()

    def _find(self, plugin: str, method: str) -> LoadedMethod:
        if plugin not in self._loaded.plugins:
            reason = self._loaded.errors.get(plugin)
            if reason is not None:
                raise MethodFault("no_such_plugin", f"plugin {plugin} is not loaded: {reason}")
            raise MethodFault("no_such_plugin", f"no such plugin: {plugin} (loaded: {_names(self._specs)})")
        methods = self._loaded.plugins[plugin].methods
        if method not in methods:
            raise MethodFault("no_such_method", f"no such method: {plugin}.{method} (it has: {_names(methods)})")
        return methods[method]


def _names(mapping: Mapping[str, object]) -> str:
    return ", ".join(sorted(mapping)) or "none"


async def _call(found: LoadedMethod, context: Context, parameters: JsonObject) -> Any:
    model = found.model.model_validate(parameters)
    if found.takes_model:
        return await found.function(context, model)
    return await found.function(context, **{name: getattr(model, name) for name in type(model).model_fields})


def _passed(returned: Any) -> Outcome:
    if isinstance(returned, Result):
        return Outcome(StepResult.PASSED, output=_json(returned.output), exit_code=returned.exit_code)
    return Outcome(StepResult.PASSED, output=_json(returned))


def _failed(verdict: Failed) -> Outcome:
    try:
        output = _json(verdict.output)
    except MethodFault as fault:
        return _error(fault.kind, fault.message, fault.data)
    return Outcome(StepResult.FAILED, output=output, reason=verdict.reason, exit_code=verdict.exit_code)


def _error(kind: str, message: str, data: JsonObject) -> Outcome:
    try:
        shown = _json(data)
    except MethodFault:
        shown = {}
    return Outcome(
        StepResult.ERROR, reason=message, error=MethodError(kind=str(kind), message=str(message), data=shown)
    )


def _json(output: Any) -> JsonObject:
    """What a method returned, as JSON. Raises MethodFault ``bad_output``."""
    if output is None:
        return {}
    try:
        shown = to_jsonable_python(output, inf_nan_mode="null")
    except (PydanticSerializationError, ValueError, RecursionError) as fault:
        raise MethodFault("bad_output", f"what the method returned is not JSON: {type(fault).__name__}") from None
    if not isinstance(shown, dict):
        kind = type(output).__name__
        raise MethodFault("bad_output", f"a method returns a mapping, a model, a Result or nothing, not {kind}")
    return shown
