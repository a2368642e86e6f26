"""The services' settings files, which the local system writes at each start. Pure, except ``write``."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from proctor_cli.init.files import replace
from proctor_cli.init.identity import Identities
from proctor_cli.local.nats import EVENT_MAX_BYTES, LOG_MAX_BYTES
from proctor_cli.local.target import HOST, SshTarget

HEADER = "# Written by `proctor up` at each start. PROCTOR_<SERVICE>_<NAME> in its environment goes before.\n"
_BARE = re.compile(r"^[A-Za-z0-9_-]+\Z")


def controller_settings(
    identities: Identities, *, database: str, nats: str, pool_file: Path, pool_folder: Path
) -> dict[str, Any]:
    """The content of ``controller.toml``."""
    found: dict[str, Any] = {
        "database_url": database,
        "database_password_file": str(identities.password("proctor_controller")),
        "nats_urls": [nats],
        "nats_nkey_file": str(identities.nats_seed("controller")),
        "system_nkey_file": str(identities.nats_seed("system")),
        "account_key_file": str(identities.account_key),
        "seal_key_file": str(identities.sealing_key),
        "log_max_bytes": LOG_MAX_BYTES,
        "event_max_bytes": EVENT_MAX_BYTES,
        "pool_file": str(pool_file),
        "pool_folder": str(pool_folder),
        # Servers on this machine belong to the same user: webhooks of plans may call them.
        "webhook_hosts": ["127.0.0.1", "::1"],
    }
    return found


def api_settings(
    identities: Identities,
    *,
    http: str,
    database: str,
    nats: str,
    no_auth: bool = False,
    tls: tuple[Path, Path] | None = None,
) -> dict[str, Any]:
    """The content of ``api.toml``; ``tls``: certificate and key, for an address beyond loopback."""
    found: dict[str, Any] = {
        "http": http,
        "database_url": database,
        "database_password_file": str(identities.password("proctor_api")),
        "nats_urls": [nats],
        "nats_nkey_file": str(identities.nats_seed("api")),
        "first_token_file": str(identities.admin_token),
        "no_auth": no_auth,
    }
    if tls is not None:
        found["tls_cert_file"], found["tls_key_file"] = (str(path) for path in tls)
    return found


def agent_settings(
    *, host: str, data: Path, join_url: str, nats: str, target: SshTarget, ca: Path | None = None
) -> dict[str, Any]:
    """The content of an agent's ``agent.toml``; its one target is the loopback SSH server."""
    found: dict[str, Any] = {
        "host": host,
        "data_dir": str(data),
        "join_url": join_url,
        "nats_urls": [nats],
        "default_target": "local",
        "targets": {
            "local": {
                "host": HOST,
                "port": target.port,
                "user": target.user,
                "key_file": str(target.key),
                "known_hosts_file": str(target.known_hosts),
            }
        },
    }
    if ca is not None:
        found["join_ca_file"] = str(ca)
    return found


def write(path: Path, settings: Mapping[str, Any]) -> None:
    """Write a settings file (0600). Raises CannotKeep."""
    replace(path, HEADER + as_toml(settings))


def as_toml(settings: Mapping[str, Any]) -> str:
    """TOML of texts, whole numbers, booleans, lists of them and tables of tables."""
    lines: list[str] = []
    _add_table(lines, (), settings)
    return "\n".join(lines) + "\n"


def _add_table(lines: list[str], path: tuple[str, ...], table: Mapping[str, Any]) -> None:
    plain = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    if path and (plain or not table):
        lines.append(f"\n[{'.'.join(_key(part) for part in path)}]")
    lines += [f"{_key(key)} = {_value(value)}" for key, value in plain.items()]
    for key, value in table.items():
        if isinstance(value, Mapping):
            _add_table(lines, (*path, key), value)


def _key(text: str) -> str:
    return text if _BARE.match(text) else _value(text)


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            # A JSON string is a TOML basic string, except that TOML also wants DEL escaped.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case list() | tuple():
            return f"[{', '.join(_value(item) for item in value)}]"
    raise TypeError(f"no TOML for {type(value).__name__}")
