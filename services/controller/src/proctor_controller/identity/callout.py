"""The auth callout's messages: a server's request, and the user that admits an agent. No I/O, no clock.

A server's request is claims that it signed itself; they contain the client's public key, the nonce that the server gave
it and the client's signature over it. The answer is claims signed by the account, which contain the user (claims again)
or an error.
"""

import base64
import binascii
from dataclasses import dataclass
from typing import Any

from proctor_common import subjects
from proctor_controller.identity.nkey import BadClaims, BadKey, Issuer, is_signed, read_claims

AUDIENCE = "nats-authorization-request"
REPLY_SECONDS = 60
"""How long an agent may take to answer an order."""
MAX_SUBSCRIPTIONS = 256


@dataclass(frozen=True, slots=True)
class AuthRequest:
    """A client that wants to connect: through which server, as which one-time user, with which key. ``signed``: whether
    it proved that it has the key.
    """

    server: str
    user: str
    public_key: str
    client_name: str
    client_host: str
    signed: bool


def read_request(payload: bytes) -> AuthRequest:
    """A server's request. Raises BadClaims if it is not one that the server itself has signed."""
    claims = read_claims(payload, "N")
    asked = claims.get("nats")
    if claims.get("aud") != AUDIENCE or not isinstance(asked, dict):
        raise BadClaims("not an authorization request")
    server, info, options = (_mapping(asked, name) for name in ("server_id", "client_info", "connect_opts"))
    if server.get("id") != claims.get("iss"):
        raise BadClaims("signed by another server than the one it names")
    public_key = str(options.get("nkey") or "")
    return AuthRequest(
        server=str(server["id"]),
        user=str(asked.get("user_nkey") or ""),
        public_key=public_key,
        client_name=str(info.get("name") or "")[:200],
        client_host=str(info.get("host") or "")[:200],
        signed=_is_proved(public_key, str(info.get("nonce") or ""), str(options.get("sig") or "")),
    )


def _mapping(parent: dict[str, Any], name: str) -> dict[str, Any]:
    value = parent.get(name)
    return value if isinstance(value, dict) else {}


def _is_proved(public_key: str, nonce: str, signature: str) -> bool:
    if not nonce:
        return False
    try:
        # Clients differ: with and without padding, in both alphabets.
        plain = signature.rstrip("=").replace("+", "-").replace("/", "_")
        raw = base64.urlsafe_b64decode(plain + "=" * (-len(plain) % 4))
        return is_signed(public_key, "U", nonce.encode(), raw)
    except (BadKey, binascii.Error, ValueError):
        return False


def permissions(agent: str) -> dict[str, Any]:
    """An agent's permissions on the bus: its own subjects, its own inbox, one answer to each order."""
    return {
        "pub": {
            "allow": [
                subjects.events_of(agent),
                subjects.logs_of(agent),
                subjects.heartbeat(agent),
                subjects.registration(agent),
            ]
        },
        "sub": {"allow": [subjects.orders(agent), f"{subjects.inbox_prefix(agent)}.>"]},
        "resp": {"max": 1, "ttl": REPLY_SECONDS * 1_000_000_000},
    }


def let_in(issuer: Issuer, request: AuthRequest, agent: str, *, account: str, now: int, expires: int) -> bytes:
    """The answer that makes the client the agent's user, from ``now`` until ``expires`` (seconds since the epoch)."""
    user = issuer.sign(
        {
            "sub": request.user,
            "aud": account,
            "name": agent,
            "jti": f"{agent}.{now}",
            "iat": now,
            "exp": expires,
            "nats": {
                **permissions(agent),
                "subs": MAX_SUBSCRIPTIONS,
                "data": -1,
                "payload": -1,
                "type": "user",
                "version": 2,
            },
        }
    )
    return _answer(issuer, request, now, {"jwt": user})


def keep_out(issuer: Issuer, request: AuthRequest, reason: str, *, now: int) -> bytes:
    """The answer that refuses the client; the reason appears in the server's log, not at the client."""
    return _answer(issuer, request, now, {"error": reason})


def _answer(issuer: Issuer, request: AuthRequest, now: int, content: dict[str, Any]) -> bytes:
    return issuer.sign(
        {
            "sub": request.user,
            "aud": request.server,
            "jti": f"{request.user}.{now}",
            "iat": now,
            "nats": {**content, "type": "authorization_response", "version": 2},
        }
    ).encode()
