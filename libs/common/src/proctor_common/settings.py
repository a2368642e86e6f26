"""Settings of a service: environment, then TOML file, then default. Reports all faults at once, with similar names.

    class ApiSettings(ServiceSettings):
        SERVICE: ClassVar[str] = "api"
        http_port: int = 8774
        database_password: SecretStr

    settings = load_settings(ApiSettings, config=Path("api.toml"))

``http_port`` comes from ``PROCTOR_API_HTTP_PORT`` or from ``http_port`` in the file. A secret may also be read
from a file that ``PROCTOR_API_DATABASE_PASSWORD_FILE`` or ``database_password_file`` names. Mappings and lists
are JSON in the environment.
"""

import difflib
import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args

from pydantic import SecretBytes, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from proctor_common.service import ConfigurationError

FILE_SUFFIX = "_file"
MAX_CONFIG_BYTES = 1024 * 1024
T = TypeVar("T", bound="ServiceSettings")


class ServiceSettings(BaseSettings):
    """Base of each service's settings; ``SERVICE`` is its name in ``PROCTOR_<SERVICE>_…``."""

    SERVICE: ClassVar[str] = ""
    model_config = SettingsConfigDict(extra="forbid", frozen=True, validate_default=False)

    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is passed in: :func:`load_settings` reads environment and file itself, to report each fault."""
        return (init_settings,)


def prefix_of(kind: type[ServiceSettings]) -> str:
    """``PROCTOR_API_`` for the service ``api``."""
    return f"PROCTOR_{kind.SERVICE.upper().replace('-', '_')}_"


def load_settings(kind: type[T], *, config: Path | None = None, environ: Mapping[str, str] | None = None) -> T:
    """Read the settings. Raises ConfigurationError (exit code 2) with one line for each fault."""
    faults: list[str] = []
    values = _from_file(kind, config, faults)
    values.update(_from_environment(kind, os.environ if environ is None else environ, faults))
    settings: T | None = None
    try:
        settings = kind(**values)
    except ValidationError as error:
        faults.extend(_readable(kind, error))
    if faults or settings is None:
        lines = "".join(f"\n  {fault}" for fault in faults)
        raise ConfigurationError(f"{'a setting is' if len(faults) == 1 else 'settings are'} wrong:{lines}")
    return settings


def _from_file(kind: type[ServiceSettings], config: Path | None, faults: list[str]) -> dict[str, Any]:
    if config is None:
        return {}
    try:
        with config.open("rb") as file:
            text = file.read(MAX_CONFIG_BYTES + 1)
        if len(text) > MAX_CONFIG_BYTES:
            raise ConfigurationError(f"{config} is over 1 MiB")
        given = tomllib.loads(text.decode())
    except OSError as fault:
        raise ConfigurationError(f"cannot read {config}: {fault.strerror}") from fault
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise ConfigurationError(f"{config} is no TOML: {fault}") from fault
    return _resolve(kind, given, lambda name: f"{config}: {name}", faults, base=config.parent)


def _from_environment(kind: type[ServiceSettings], environ: Mapping[str, str], faults: list[str]) -> dict[str, Any]:
    prefix = prefix_of(kind)
    given: dict[str, Any] = {}
    for name, text in environ.items():
        if not name.upper().startswith(prefix):
            continue
        field = name[len(prefix) :].lower()
        info = kind.model_fields.get(field)
        given[field] = _parse(info, text) if info is not None else text
    return _resolve(kind, given, lambda name: f"{prefix}{name.upper()}", faults, base=Path())


def _parse(info: FieldInfo, text: str) -> Any:
    """Lists, mappings and models are JSON in the environment; a list may be written with commas."""
    if not _is_complex(info.annotation):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return [part.strip() for part in text.split(",") if part.strip()]


def _is_complex(annotation: Any) -> bool:
    if annotation in {str, int, float, bool, Path, SecretStr, SecretBytes, type(None)}:
        return False
    args = get_args(annotation)
    if args and getattr(annotation, "__origin__", None) is Literal:
        return False
    if args and getattr(annotation, "__origin__", None) not in {list, tuple, dict, set, frozenset}:
        return any(_is_complex(arg) for arg in args)
    kind = getattr(annotation, "__origin__", None) or annotation
    return isinstance(kind, type) and (
        issubclass(kind, list | tuple | dict | set | frozenset) or hasattr(kind, "model_fields")
    )


def _is_secret(info: FieldInfo) -> bool:
    kinds = {info.annotation, *get_args(info.annotation)}
    return bool(kinds & {SecretStr, SecretBytes})


def _resolve(
    kind: type[ServiceSettings], given: dict[str, Any], spell: Any, faults: list[str], *, base: Path
) -> dict[str, Any]:
    """Known names only; a secret's ``…_file`` becomes the file's content."""
    fields = kind.model_fields
    secret_files = {f"{name}{FILE_SUFFIX}": name for name, info in fields.items() if _is_secret(info)}
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name in fields:
            values[name] = value
        elif name in secret_files:
            if secret_files[name] in given:
                faults.append(f"{spell(name)}: {secret_files[name]} is given too; only one of them may be")
            text = _read_secret(base / str(value), spell(name), faults)
            if text is not None:
                values[secret_files[name]] = text
        else:
            faults.append(_unknown(name, [*fields, *secret_files], spell))
    return values


def _read_secret(path: Path, name: str, faults: list[str]) -> str | None:
    try:
        return path.read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as fault:
        faults.append(f"{name}: cannot read {path}: {getattr(fault, 'strerror', None) or 'not text'}")
        return None


def _unknown(name: str, known: list[str], spell: Any) -> str:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return f"{spell(name)}: no such setting; the nearest is {spell(nearest[0]) if nearest else 'none'}"


def _readable(kind: type[ServiceSettings], error: ValidationError) -> list[str]:
    lines = []
    for fault in error.errors(include_url=False, include_input=False):
        head, *rest = [str(part) for part in fault["loc"]] or [""]
        where = ".".join([head, *rest])
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "missing":
            message = f"is missing (in the environment: {prefix_of(kind)}{head.upper()})"
        lines.append(f"{where}: {message}" if where else message)
    return lines
