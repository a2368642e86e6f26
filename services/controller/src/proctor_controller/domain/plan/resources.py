"""What a plan's run needs as a whole: roles of hosts, volumes, concurrency, hold, timeouts, outputs, webhook. Pure."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from proctor_common.ids import GROUP_NAME, HOST_NAME, PLUGIN_NAME, STEP_NAME
from proctor_common.limits import MAX_LABELS
from proctor_controller.domain.documents.spelling import hint, misspelt
from proctor_controller.domain.expressions.text import has_expression
from proctor_controller.domain.hosts.requirements import (
    Concurrency,
    Hold,
    HostRole,
    Rollback,
    VolumeRequirement,
    WhenFull,
)
from proctor_controller.domain.plan.model import Path
from proctor_controller.domain.plan.reader import BAD_NAME, Unknown
from proctor_controller.domain.plan.templates import OF_RUN, Names, Templates

MAX_LABEL = 255
MAX_ROLES = 50
MAX_HOSTS = 256
MAX_VOLUMES = 50
MAX_OUTPUTS = 100
MAX_KEY = 200
MAX_SECRETS = 50
SECRET_NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,126}\Z")
_TYPE_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")
_ROLE = ("group", "labels", "host", "plugin", "count", "exclusive")
_VOLUME = ("type", "count", "size_gb", "pool", "on_end")
_CONCURRENCY = ("group", "max", "when_full")
_HOLD = ("hosts", "for")
_WEBHOOK = ("url", "secret")


def _named(reader: Templates, value: Any, path: Path, most: int) -> dict[str, Any]:
    """A mapping of names to values of any kind."""
    mapping = reader.mapping(value, path)
    for name in list(mapping)[most : most + 1]:
        message = f"is one too many: there are {len(mapping)}, and {most} are allowed"
        reader.fault((*path, name), message, "too_large")
    for name in mapping:
        if not STEP_NAME.match(name):
            reader.fault((*path, name), BAD_NAME)
    return mapping


def read_labels(reader: Templates, value: Any, path: Path) -> dict[str, str]:
    """Labels that an agent must have."""
    labels = reader.mapping(value, path)
    if isinstance(value, dict) and not 1 <= len(labels) <= MAX_LABELS:
        reader.fault(path, f"give 1 to {MAX_LABELS} labels, not {len(labels)}")
    return {key: reader.text(label, (*path, key), most=MAX_LABEL) for key, label in labels.items()}


def read_roles(reader: Templates, value: Any) -> dict[str, HostRole]:
    """``hosts``, including those with faults, so that references to them can be checked."""
    path: Path = ("hosts",)
    return {
        name: _role(reader, name, part, (*path, name)) for name, part in _named(reader, value, path, MAX_ROLES).items()
    }


def _role(reader: Templates, name: str, value: Any, path: Path) -> HostRole:
    given = reader.mapping(value, path, _ROLE)
    known = {key: part for key in given if not isinstance(part := reader.early(given[key], (*path, key)), Unknown)}
    asked = ("group", "labels", "host", "plugin")
    if isinstance(value, dict) and not any(name in value or misspelt(value, name, _ROLE) for name in asked):
        reader.fault(path, "give at least one of group, labels, host and plugin", "missing")
    count = _counted(reader, given, known, path)
    if "host" in known and count > 1:
        reader.fault((*path, "count"), "a named host is one host")
    return HostRole(
        name=name,
        group=reader.text(known["group"], (*path, "group"), GROUP_NAME) if "group" in known else None,
        labels=read_labels(reader, known["labels"], (*path, "labels")) if "labels" in known else None,
        host=reader.text(known["host"], (*path, "host"), HOST_NAME) if "host" in known else None,
        plugin=reader.text(known["plugin"], (*path, "plugin"), PLUGIN_NAME) if "plugin" in known else None,
        count=count,
        exclusive=reader.flag(known.get("exclusive", False), (*path, "exclusive")),
    )


def _counted(reader: Templates, given: Mapping[str, Any], known: Mapping[str, Any], path: Path) -> int:
    """Their number."""
    before = len(reader.faults)
    count = reader.count(known.get("count", 1), (*path, "count"), most=MAX_HOSTS)
    if len(reader.faults) == before and ("count" in known or "count" not in given):
        reader.known.sizes[".".join(map(str, path))] = count
    return count


def read_volumes(reader: Templates, value: Any) -> dict[str, VolumeRequirement]:
    """``volumes``"""
    path: Path = ("volumes",)
    return {
        name: _volume(reader, name, part, (*path, name))
        for name, part in _named(reader, value, path, MAX_VOLUMES).items()
    }


def _volume(reader: Templates, name: str, value: Any, path: Path) -> VolumeRequirement:
    given = reader.mapping(value, path, _VOLUME)
    known = {key: part for key in given if not isinstance(part := reader.early(given[key], (*path, key)), Unknown)}
    reader.missing(value, "type", path, _VOLUME)
    return VolumeRequirement(
        name=name,
        type=reader.text(known["type"], (*path, "type"), _TYPE_NAME) if "type" in known else "",
        count=_counted(reader, given, known, path),
        size_gb=reader.count(known["size_gb"], (*path, "size_gb"), most=64 * 1024) if "size_gb" in known else None,
        pool=reader.choice(known.get("pool", "prefer"), (*path, "pool"), ("prefer", "require", "bypass")),
        on_end=reader.choice(known.get("on_end", "delete"), (*path, "on_end"), ("delete", "retain")),
    )


def read_concurrency(reader: Templates, value: Any) -> Concurrency | None:
    """``concurrency``: None if its key depends on a parameter that is unknown."""
    path: Path = ("concurrency",)
    given = reader.mapping(value, path, _CONCURRENCY)
    is_missing = reader.missing(value, "group", path, _CONCURRENCY)
    key = reader.early(given.get("group", ""), (*path, "group"))
    most = reader.early(given.get("max", 1), (*path, "max"))
    when = reader.choice(given.get("when_full", WhenFull.QUEUE.value), (*path, "when_full"), WhenFull)
    count = 1 if isinstance(most, Unknown) else reader.count(most, (*path, "max"), most=10_000)
    if is_missing or isinstance(key, Unknown) or isinstance(most, Unknown):
        return None
    key = reader.spelled(key, (*path, "group"))
    text = reader.text(key, (*path, "group"), most=MAX_KEY)
    if isinstance(key, str) and not key.strip():
        reader.fault((*path, "group"), "must not be empty")
    return Concurrency(text, count, WhenFull(when))


def read_hold(reader: Templates, value: Any, roles: Mapping[str, HostRole]) -> Hold | None:
    """``hold_on_failure``"""
    path: Path = ("hold_on_failure",)
    given = reader.mapping(value, path, _HOLD)
    missing = [name for name in _HOLD if reader.missing(value, name, path, _HOLD)]
    names = given.get("hosts", [])
    if "hosts" in given and (not isinstance(names, list) or not names):
        reader.fault((*path, "hosts"), "must be a list of roles")
        names = []
    for index, name in enumerate(names):
        if "hosts" not in reader.known.unread and (not isinstance(name, str) or name not in roles):
            message = f"there is no role {str(name)[:60]!r}{hint(str(name), roles)}"
            reader.fault((*path, "hosts", index), message, "unknown_name")
    seconds = reader.early(given.get("for", 1), (*path, "for"))
    if isinstance(seconds, Unknown):
        return None
    held = reader.duration(seconds, (*path, "for"))
    return None if missing or not names else Hold(tuple(map(str, names)), held)


def read_outputs(reader: Templates, value: Any, refs: set[str]) -> dict[str, Any]:
    """``outputs`` of the plan."""
    path: Path = ("outputs",)
    names = Names(OF_RUN)
    return {
        name: reader.template(part, (*path, name), names, refs)
        for name, part in _named(reader, value, path, MAX_OUTPUTS).items()
    }


def read_rollback(reader: Templates, value: Any) -> Rollback:
    """``rollback`` of the plan."""
    return Rollback(reader.choice(value, ("rollback",), Rollback))


def read_secrets(reader: Templates, value: Any, path: Path) -> dict[str, str]:
    """``secrets``: references by their names in this plan."""
    return {
        name: reader.text(part, (*path, name), SECRET_NAME)
        for name, part in _named(reader, value, path, MAX_SECRETS).items()
    }


def read_webhook(reader: Templates, value: Any) -> tuple[str, str | None]:
    """``webhook``: its address, and the template of its secret, if it has one."""
    path: Path = ("webhook",)
    given = reader.mapping(value, path, _WEBHOOK)
    reader.missing(value, "url", path, _WEBHOOK)
    url = reader.spelled(reader.early(given.get("url", ""), (*path, "url")), (*path, "url"))
    if "url" in given and not isinstance(url, Unknown) and reader.is_text(url, (*path, "url"), most=2000):
        _check_url(reader, url, (*path, "url"))
    if "secret" not in given:
        return str(url), None
    where = (*path, "secret")
    secret = reader.template(given["secret"], where, Names(frozenset({"params"}), hidden=True), set())
    return str(url), reader.text(secret, where, most=2000) or None


def _check_url(reader: Templates, url: str, path: Path) -> None:
    try:
        parts = urlsplit(url)
        sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        personal = parts.username is not None or parts.password is not None
    except ValueError:
        sound = personal = False
    if not all("!" <= character <= "~" for character in url):
        message = "must hold ASCII characters only, and no blank: write others as %20 and the like, names as xn--…"
        reader.fault(path, message)
    elif not sound:
        reader.fault(path, "must be an http or https address")
    elif personal:
        reader.fault(path, "must hold no user and password: it is stored in the clear")


def is_literal_secret(template: str | None) -> bool:
    """Whether a secret is written in the document itself instead of being referred to."""
    return template is not None and not has_expression(template)
