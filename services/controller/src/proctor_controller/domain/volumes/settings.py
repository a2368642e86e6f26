"""The pool's settings in the legacy INI form: by key name, whatever the section, without interpolation. Pure."""

import configparser
import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from proctor_common.durations import read_duration

MAX_TEXT = 64 * 1024
MAX_COUNT = 10_000
MAX_TYPES = 64
TYPE_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")
OWN_SECTIONS = frozenset({"volumes", "volumes_backup", "auth_args", "pool", "local"})
"""In these an unknown key is a fault; other sections of the legacy file are ignored."""
COUNTS, SIZES = "backup_nums_", "volume_size_gb_"
MAX_DURATION = 1e9 * 86_400.0
"""Seconds: a setting's duration stays below it, since ``timedelta`` holds no more."""


class BadPoolSettings(Exception):
    """Settings that are refused: ``faults`` names all faults, one a line, each with its key. Quotes no password."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class PoolType:
    """One type of volume: how many spares the file asks for, and how large they are."""

    name: str
    target: int
    size_gb: int


@dataclass(frozen=True, slots=True)
class CloudSettings:
    """Where and as whom volumes are made; all empty: by the environment (``OS_*``) or clouds.yaml."""

    auth_url: str = ""
    auth_project: str = ""
    auth_user: str = ""
    auth_passwd: str = field(default="", repr=False)
    auth_domain: str = ""
    cloud: str = ""
    region: str = ""
    interface: str = ""
    cacert: str = ""


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """How the local backend imitates a cloud. ``create_delay``: seconds in ``creating``; ``fail_rate``: the share of
    volumes that end in error; ``answer_delay``: seconds for each call; ``quota``: maximum of volumes, 0: no limit.
    """

    create_delay: float = 0.0
    fail_rate: float = 0.0
    answer_delay: float = 0.0
    quota: int = 0


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """The pool's settings. Times in seconds unless their names say otherwise; ``max_volumes`` 0 and ``max_age`` 0: no
    limit. ``notes``: keys that were read and have no effect.
    """

    backend: str = "local"
    types: Mapping[str, PoolType] = field(default_factory=dict)
    concurrency: int = 10
    backup_frequency_minute: int = 10
    check_state_frequency_minute: int = 5
    create_volume_time_interval_second: float = 0.0
    max_volumes: int = 0
    max_age: float = 0.0
    stray_age: float = 60.0
    cloud: CloudSettings = CloudSettings()
    local: LocalSettings = LocalSettings()
    notes: tuple[str, ...] = ()

    def same_backend(self, other: "PoolSettings") -> bool:
        """Whether both mean the same backend, so that the open one can be kept."""
        return (self.backend, self.cloud, self.local) == (other.backend, other.cloud, other.local)


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and len(text) <= 9 and low <= int(text) <= high):
            raise ValueError(f"a whole number of {low} to {high}")
        return int(text)

    return read


def _number(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        found = re.match(r"^[0-9]{1,9}(\.[0-9]{1,6})?\Z", text)
        if found is None or not low <= float(text) <= high:
            raise ValueError(f"a number of {low:g} to {high:g}")
        return float(text)

    return read


def _duration(text: str) -> float:
    seconds = read_duration(text)
    if seconds is None or seconds >= MAX_DURATION:
        raise ValueError("a number of seconds, or one with ms, s, m, h or d")
    return seconds


def _backend(text: str) -> str:
    if text not in {"local", "cinder"}:
        raise ValueError("local or cinder")
    return text


def _text(text: str) -> str:
    if len(text) > 1000:
        raise ValueError("at most 1000 characters")
    return text


_POOL: Mapping[str, Callable[[str], Any]] = {
    "backend": _backend,
    "concurrency": _whole(1, 200),
    "backup_frequency_minute": _whole(1, 60),
    "check_state_frequency_minute": _whole(1, 60),
    "create_volume_time_interval_second": _number(0, 3600),
    "max_volumes": _whole(0, 1_000_000),
    "max_age": _duration,
    "stray_age": _duration,
}
_LOCAL: Mapping[str, Callable[[str], Any]] = {
    "create_delay": _duration,
    "fail_rate": _number(0, 1),
    "answer_delay": _duration,
    "quota": _whole(0, 1_000_000),
}
_CLOUD = frozenset(CloudSettings.__slots__)
_OTHER = {"volume_queue", "volume_backup_types", "volume_size_gb"}
KEYS = frozenset({*_POOL, *_LOCAL, *_CLOUD, *_OTHER})


def parse_pool(text: str, *, default_backend: str = "") -> PoolSettings:
    """The settings in an INI file's text. Raises BadPoolSettings with every fault.

    Without a ``backend`` key it is ``cinder`` if the file has an ``auth_url`` or a ``cloud``, else ``default_backend``,
    else ``local``.
    """
    if len(text) > MAX_TEXT:
        raise BadPoolSettings([f"the file is longer than {MAX_TEXT} characters"])
    return _Reading(text, default_backend).settings()


class _Reading:
    """Reads one file and collects its faults."""

    def __init__(self, text: str, default_backend: str) -> None:
        self.faults: list[str] = []
        self.notes: list[str] = []
        self.default_backend = default_backend
        self.values = self._collect(text)

    def settings(self) -> PoolSettings:
        pool = self._read(_POOL)
        local = self._read(_LOCAL)
        cloud = self._read(dict.fromkeys(_CLOUD, _text))
        types = self._types()
        if "volume_queue" in self.values:
            self.notes.append("volume_queue has no effect: the pool needs no queue of its own")
        if self.faults:
            raise BadPoolSettings(self.faults)
        named = cloud.get("auth_url") or cloud.get("cloud")
        pool.setdefault("backend", "cinder" if named else self.default_backend or "local")
        settings = PoolSettings(types=types, cloud=CloudSettings(**cloud), local=LocalSettings(**local), **pool)
        return replace(settings, notes=tuple(self.notes))

    def _collect(self, text: str) -> dict[str, str]:
        """All keys with their values, whatever their section. One key with two values is a fault."""
        parser = configparser.ConfigParser(
            interpolation=None, allow_no_value=True, strict=False, default_section="\0", inline_comment_prefixes=("#",)
        )
        try:
            parser.read_string(text if text.lstrip().startswith("[") else f"[DEFAULT]\n{text}")
        except configparser.Error as fault:
            raise BadPoolSettings([f"not an INI file: {_first_line(fault)}"]) from None
        values: dict[str, str] = {}
        for section in parser.sections():
            for key, value in parser.items(section):
                if not self._is_ours(section, key):
                    continue
                if value is None:
                    self.faults.append(f"{key}: has no value")
                elif values.setdefault(key, value.strip()) != value.strip():
                    self.faults.append(f"{key}: stands there twice, with two values")
        if not text.strip():
            raise BadPoolSettings(["the file is empty; to end the pool, leave volume_backup_types without a type"])
        if not values and not self.faults:
            raise BadPoolSettings(["not an INI file with settings of the pool: none of its keys is one"])
        return values

    def _is_ours(self, section: str, key: str) -> bool:
        if key in KEYS or key.startswith((COUNTS, SIZES)):
            return True
        near = difflib.get_close_matches(key, [*KEYS, COUNTS], 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        if section in OWN_SECTIONS and key.strip("."):
            self.faults.append(f"{key[:100]}: no such setting in [{section}]{hint}")
        elif near:
            self.notes.append(f"{key[:100]} in [{section[:100]}] has no effect{hint}")
        return False

    def _read(self, table: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, read in table.items():
            if key not in self.values:
                continue
            try:
                found[key] = read(self.values[key])
            except ValueError as fault:
                shown = "" if key in _CLOUD else f", not {self.values[key][:100]!r}"
                self.faults.append(f"{key}: must be {fault}{shown}")
        return found

    def _types(self) -> dict[str, PoolType]:
        names = [name.strip() for name in self.values.get("volume_backup_types", "").split(",") if name.strip()]
        for name in names:
            if not TYPE_NAME.match(name):
                self.faults.append(f"volume_backup_types: not the name of a type: {name[:100]!r}")
        if len(names) > MAX_TYPES or len(set(names)) != len(names):
            self.faults.append(f"volume_backup_types: at most {MAX_TYPES} types, each once")
        targets = self._per_type(COUNTS, names, _whole(0, MAX_COUNT))
        sizes = self._per_type(SIZES, names, _whole(1, 100_000))
        size = 1
        if "volume_size_gb" in self.values:
            size = self._read({"volume_size_gb": _whole(1, 100_000)}).get("volume_size_gb", 1)
        for name in names:
            if name not in targets:
                self.notes.append(f"{name} in volume_backup_types has no {COUNTS}…: no spares of it are made")
        return {name: PoolType(name, targets.get(name, 0), sizes.get(name, size)) for name in names}

    def _per_type(self, prefix: str, names: list[str], read: Callable[[str], int]) -> dict[str, int]:
        """``backup_nums_igw_bgw = 11`` sets the number of each type in the key."""
        found: dict[str, int] = {}
        lowered = {name.lower(): name for name in names}
        for key in [key for key in self.values if key.startswith(prefix)]:
            try:
                count = read(self.values[key])
            except ValueError as fault:
                self.faults.append(f"{key}: must be {fault}, not {self.values[key][:100]!r}")
                continue
            named = split_names(key.removeprefix(prefix), list(lowered))
            if named is None:
                self.faults.append(f"{key}: names a type that volume_backup_types does not list")
                continue
            for name in (lowered[each] for each in named):
                if found.setdefault(name, count) != count:
                    self.faults.append(f"{key}: {name} is counted twice, with two numbers")
        return found


def split_names(text: str, names: list[str]) -> list[str] | None:
    """The names that, joined by underscores, make the text; None if there are none. Names may contain underscores."""
    reached: dict[int, list[str]] = {0: []}
    for start in range(len(text)):
        if start not in reached:
            continue
        for name in names:
            end = start + len(name)
            if text.startswith(name, start) and (end == len(text) or text[end] == "_"):
                reached.setdefault(end if end == len(text) else end + 1, [*reached[start], name])
    return reached.get(len(text)) or None


def _first_line(fault: Exception) -> str:
    lines = str(fault).splitlines()
    numbers = getattr(fault, "errors", None)
    if numbers:
        return f"line {numbers[0][0]} cannot be read"
    return re.sub(r"'[^']*'", "it", lines[0])[:200] if lines else "it cannot be read"
