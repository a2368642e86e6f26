"""Finds plugins by entry point and loads them. One that fails is reported; the others are used."""

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pydantic import BaseModel, ValidationError

from proctor_agent.plugin import MARK, Plugin
from proctor_agent.schema import UnpublishableMethod, faults_of, parameters_of, schema_of
from proctor_common.ids import PLUGIN_NAME
from proctor_common.limits import MAX_METHODS
from proctor_common.messages.events import MethodSpec, PluginSpec

GROUP = "proctor.plugins"
MAX_DESCRIPTION = 1000
MAX_REASON = 500


@dataclass(frozen=True, slots=True)
class LoadedMethod:
    """A method, ready to call: ``function(context, …)`` with the members of ``model``, or with the model itself."""

    function: Any
    model: type[BaseModel]
    takes_model: bool
    spec: MethodSpec


@dataclass(frozen=True, slots=True)
class LoadedPlugin:
    """A plugin with its methods by name."""

    methods: Mapping[str, LoadedMethod]
    spec: PluginSpec


@dataclass(frozen=True, slots=True)
class LoadedPlugins:
    """The plugins that could be loaded, and for each other one the reason in one line."""

    plugins: Mapping[str, LoadedPlugin]
    errors: Mapping[str, str]


class UnusablePlugin(Exception):
    """Why a plugin is not loaded."""


def load(
    chosen: Iterable[str] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    found: Iterable[EntryPoint] | None = None,
) -> LoadedPlugins:
    """Load the chosen plugins (None: all that are installed). ``settings``: each plugin's own, by its name."""
    by_name: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=GROUP) if found is None else found:
        by_name.setdefault(entry.name, []).append(entry)
    plugins: dict[str, LoadedPlugin] = {}
    errors: dict[str, str] = {}
    for name in sorted(by_name) if chosen is None else dict.fromkeys(chosen):
        try:
            plugins[name] = _load(name, by_name, (settings or {}).get(name, {}))
        except UnusablePlugin as fault:
            errors[name] = _one_line(str(fault))
    return LoadedPlugins(plugins, errors)


def _load(name: str, by_name: Mapping[str, list[EntryPoint]], settings: Mapping[str, Any]) -> LoadedPlugin:
    if not PLUGIN_NAME.match(name):
        raise UnusablePlugin("a plugin's name is made of letters, digits and underscores, 63 at most")
    entries = by_name.get(name, [])
    if not entries:
        known = ", ".join(sorted(by_name)) or "none"
        raise UnusablePlugin(f"no such plugin is installed (entry point group {GROUP} has: {known})")
    if len({entry.value for entry in entries}) > 1:
        raise UnusablePlugin(f"two installed packages claim the name: {', '.join(entry.value for entry in entries)}")
    entry = entries[0]
    try:
        # A plugin is other people's code: nothing that its import raises may end the agent.
        loaded = entry.load()
    except (Exception, SystemExit) as fault:
        raise UnusablePlugin(f"cannot import {entry.value}: {type(fault).__name__}: {fault}") from fault
    if not (inspect.isclass(loaded) and issubclass(loaded, Plugin)):
        raise UnusablePlugin(f"{entry.value} is not a class derived from proctor_agent.plugin.Plugin")
    return prepare(loaded, settings)


def prepare(plugin: type[Plugin], settings: Mapping[str, Any]) -> LoadedPlugin:
    """Load a plugin's class with its own settings. Raises UnusablePlugin."""
    return _make_ready(_create(plugin, settings))


def _create(plugin: type[Plugin], settings: Mapping[str, Any]) -> Plugin:
    values: BaseModel | None = None
    if plugin.Settings is not None:
        try:
            values = plugin.Settings.model_validate(dict(settings))
        except ValidationError as fault:
            raise UnusablePlugin(f"its settings: {faults_of(fault)}") from None
    elif settings:
        raise UnusablePlugin(f"it has no settings of its own, but some are given: {', '.join(sorted(settings))}")
    try:
        return plugin(values)
    except (Exception, SystemExit) as fault:
        raise UnusablePlugin(f"cannot create {plugin.__name__}: {type(fault).__name__}: {fault}") from fault


def _make_ready(plugin: Plugin) -> LoadedPlugin:
    methods: dict[str, LoadedMethod] = {}
    for attribute in sorted(dir(type(plugin))):
        mark = getattr(inspect.getattr_static(type(plugin), attribute), MARK, None)
        if mark is None:
            continue
        name, description = mark
        if name in methods:
            raise UnusablePlugin(f"two methods are called {name}")
        methods[name] = _method(plugin, attribute, name, description)
    if not methods:
        raise UnusablePlugin("it has no method (an async function marked with @method)")
    if len(methods) > MAX_METHODS:
        raise UnusablePlugin(f"it has {len(methods)} methods, more than {MAX_METHODS}")
    spec = PluginSpec(
        description=_text(plugin.description, "its description"),
        version=_text(plugin.version, "its version"),
        methods={name: found.spec for name, found in methods.items()},
    )
    return LoadedPlugin(methods, spec)


def _method(plugin: Plugin, attribute: str, name: str, description: str) -> LoadedMethod:
    function = getattr(type(plugin), attribute)
    if not PLUGIN_NAME.match(name):
        raise UnusablePlugin(f"method {name[:80]!r}: a name is made of letters, digits and underscores, 63 at most")
    if not inspect.iscoroutinefunction(function):
        raise UnusablePlugin(f"method {name}: must be an async function")
    if len(inspect.signature(function).parameters) < 2:
        raise UnusablePlugin(f"method {name}: must take self and the context")
    try:
        model, takes_model = parameters_of(function, name)
        schema = schema_of(model)
    except UnpublishableMethod as fault:
        raise UnusablePlugin(f"method {name}: {fault}") from fault
    except Exception as fault:
        # pydantic refuses types with many exceptions; all of them are the plugin's fault.
        raise UnusablePlugin(f"method {name}: its parameters have no JSON Schema: {fault}") from fault
    spec = MethodSpec(description=_text(description, f"method {name}: its description"), parameters=schema)
    return LoadedMethod(getattr(plugin, attribute), model, takes_model, spec)


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or len(value) > MAX_DESCRIPTION:
        raise UnusablePlugin(f"{what} must be a text of at most {MAX_DESCRIPTION} characters")
    return value


def _one_line(text: str) -> str:
    return " ".join(text.split())[:MAX_REASON]
