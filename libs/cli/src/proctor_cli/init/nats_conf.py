"""The configuration of nats-server: accounts, the auth callout, permissions. No I/O.

Agents have no entry here: the controllers answer for them through the auth callout.
"""

import json
from dataclasses import dataclass
from pathlib import PurePath

from proctor_common import subjects

MAX_PAYLOAD = "4MB"


@dataclass(frozen=True, slots=True)
class NatsIdentities:
    """Public keys: the account that issues agents' users, and the static users."""

    issuer: str
    controller: str
    api: str
    system: str


@dataclass(frozen=True, slots=True)
class NatsTls:
    """The server's certificate and its key."""

    certificate: PurePath
    key: PurePath


def nats_server_conf(
    identities: NatsIdentities,
    *,
    listen: str,
    store: PurePath,
    max_store: str = "24GB",
    tls: NatsTls | None = None,
    monitoring: str | None = None,
    callout_seconds: float = 5,
) -> str:
    """The text of ``nats-server.conf``.

    ``listen`` and ``monitoring`` are ``address:port``; ``max_store`` must be enough for all streams together.
    ``callout_seconds``: how long a client waits for a controller's answer, even if no controller listens.
    """
    return (
        "\n".join(
            part
            for part in (
                "# Written by proctor from its keys; the next start or `proctor init` writes it again.",
                f"listen: {_text(listen)}",
                f"http: {_text(monitoring)}" if monitoring else "",
                f"max_payload: {MAX_PAYLOAD}",
                "max_connections: 20000",
                # Clients are pinged every 10 s: a cut cable is noticed in 30 s.
                'ping_interval: "10s"',
                "ping_max: 2",
                'write_deadline: "10s"',
                # Clients of this version can read only the first form of acknowledgements.
                "feature_flags { js_ack_fc_v2: false }",
                f"jetstream {{ store_dir: {_text(str(store))}, max_file_store: {max_store}, max_memory_store: 256MB }}",
                _tls(tls),
                _accounts(identities, callout_seconds),
            )
            if part
        )
        + "\n"
    )


def _accounts(identities: NatsIdentities, callout_seconds: float) -> str:
    publish = [subjects.ALL_CALLS, subjects.DIRECT_GET_LOG]
    heard = [subjects.ALL_WAKES, subjects.LIVE_SUBJECTS, subjects.records()]
    subscribe = [*heard, f"{subjects.inbox_prefix('api')}.>"]
    return f"""\
accounts {{
  PROCTOR {{
    jetstream: enabled
    users: [
      {{ nkey: {identities.controller} }}
      {{ nkey: {identities.api}, permissions {{
        publish {{ allow: {_list(publish)} }}
        subscribe {{ allow: {_list(subscribe)} }}
      }} }}
    ]
  }}
  SYS {{ users: [ {{ nkey: {identities.system} }} ] }}
}}
system_account: SYS
authorization {{
  timeout: {callout_seconds:g}
  auth_callout {{
    issuer: {identities.issuer}
    account: PROCTOR
    auth_users: [ {identities.controller}, {identities.api}, {identities.system} ]
  }}
}}"""


def _tls(tls: NatsTls | None) -> str:
    if tls is None:
        return ""
    return f"""\
tls {{
  cert_file: {_text(str(tls.certificate))}
  key_file: {_text(str(tls.key))}
  min_version: "1.2"
  timeout: 5
}}"""


def _text(value: str) -> str:
    """A quoted string, in which `$` and spaces have no special meaning."""
    return json.dumps(value, ensure_ascii=False)


def _list(values: list[str]) -> str:
    return "[ " + ", ".join(_text(value) for value in values) + " ]"
