"""What the auth callout believes, and what it grants."""

import base64
import json
import os
from typing import Any

import nkeys
import pytest

from proctor_controller.identity.callout import AuthRequest, keep_out, let_in, permissions, read_request
from proctor_controller.identity.nkey import BadClaims, BadKey, Issuer, is_signed, public_bytes, read_claims

AGENT = "01a1fbf2-3c62-718a-9d1d-e48b540ecc8b"


class Pair:
    """A pair of keys."""

    def __init__(self, prefix: int) -> None:
        self.seed = nkeys.encode_seed(os.urandom(32), prefix).decode()
        self._key = nkeys.from_seed(bytearray(self.seed.encode()))
        self.public = self._key.public_key.decode()

    def sign(self, message: bytes) -> bytes:
        signature: bytes = self._key.sign(message)
        return signature


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(claims: object, signer: Pair, header: object = None) -> bytes:
    head = encode(json.dumps(header or {"typ": "JWT", "alg": "ed25519-nkey"}).encode())
    body = f"{head}.{encode(json.dumps(claims).encode())}"
    return f"{body}.{encode(signer.sign(body.encode()))}".encode()


server = Pair(nkeys.PREFIX_BYTE_SERVER)
agent = Pair(nkeys.PREFIX_BYTE_USER)
account = Pair(nkeys.PREFIX_BYTE_ACCOUNT)
stranger = Pair(nkeys.PREFIX_BYTE_USER)


def request(
    nonce: str = "nonce-1", signature: bytes | None = None, key: str | None = None, **changes: Any
) -> dict[str, Any]:
    signature = agent.sign(b"nonce-1") if signature is None else signature
    given: dict[str, Any] = {
        "iss": server.public,
        "aud": "nats-authorization-request",
        "nats": {
            "server_id": {"id": server.public},
            "user_nkey": stranger.public,
            "client_info": {"name": "agent/x/y", "host": "192.0.2.7", "nonce": nonce},
            "connect_opts": {"nkey": key or agent.public, "sig": base64.b64encode(signature).decode()},
        },
    }
    return {**given, **changes}


def test_a_request_of_a_server_is_read() -> None:
    asked = read_request(token(request(), server))
    assert asked == AuthRequest(server.public, stranger.public, agent.public, "agent/x/y", "192.0.2.7", signed=True)
    bare = request()
    bare["nats"]["connect_opts"]["sig"] = encode(agent.sign(b"nonce-1"))
    assert read_request(token(bare, server)).signed, "without padding, as other clients send it"


@pytest.mark.parametrize(
    "claims",
    [
        request(nonce="another"),
        request(nonce=""),
        request(signature=b""),
        request(signature=b"x" * 64),
        request(signature=stranger.sign(b"nonce-1")),
        request(key=stranger.public),
        request(key="nonsense"),
        request(key=account.public),
        {"iss": server.public, "aud": "nats-authorization-request", "nats": {"server_id": {"id": server.public}}},
    ],
)
def test_who_does_not_prove_to_have_the_key_is_seen(claims: dict[str, Any]) -> None:
    assert not read_request(token(claims, server)).signed


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"a.b.c",
        b"..",
        b"\xff",
        token(request(), agent),
        token(request(iss=agent.public), agent),
        token(request(aud="another"), server),
        token(request(nats=[]), server),
        token([], server),
        token({"iss": 7}, server),
        token(request(), server, header={"typ": "JWT", "alg": "none"}),
        token(request(), server, header=[1]),
        token(request(), server) + b"x",
        token(request(nats={"server_id": {"id": agent.public}}), server),
        token({"x": "y" * 70_000}, server),
        encode(b"[" * 10_000).encode() + b"." + encode(b"[" * 10_000).encode() + b".AA",
    ],
)
def test_what_no_server_signed_is_not_believed(payload: bytes) -> None:
    with pytest.raises(BadClaims):
        read_request(payload)


def test_a_changed_request_is_not_believed() -> None:
    head, body, signature = token(request(), server).decode().split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    claims["nats"]["connect_opts"]["nkey"] = stranger.public
    with pytest.raises(BadClaims):
        read_request(f"{head}.{encode(json.dumps(claims).encode())}.{signature}".encode())


def test_the_answer_grants_one_agent_its_own_subjects() -> None:
    issuer = Issuer(account.seed)
    asked = read_request(token(request(), server))
    answer = read_claims(let_in(issuer, asked, AGENT, account="PROCTOR", now=1000, expires=2000), "A")
    assert (answer["iss"], answer["aud"], answer["sub"]) == (account.public, server.public, stranger.public)
    user = read_claims(answer["nats"]["jwt"].encode(), "A")
    assert (user["name"], user["aud"], user["iat"], user["exp"]) == (AGENT, "PROCTOR", 1000, 2000)
    assert user["sub"] == stranger.public
    granted = permissions(AGENT)
    assert {name: user["nats"][name] for name in granted} == granted
    everything = [*granted["pub"]["allow"], *granted["sub"]["allow"]]
    assert all(AGENT in subject for subject in everything)
    assert not any(subject.startswith("$") for subject in everything)
    assert granted["resp"]["max"] == 1


def test_a_refusal_carries_no_user() -> None:
    asked = read_request(token(request(), server))
    answer = read_claims(keep_out(Issuer(account.seed), asked, "unknown_key", now=1000), "A")
    assert answer["nats"]["error"] == "unknown_key"
    assert "jwt" not in answer["nats"]


def test_keys_are_told_apart() -> None:
    assert len(public_bytes(agent.public, "U")) == 32
    other_end = "A" if agent.public[20] != "A" else "B"
    damaged = agent.public[:20] + other_end + agent.public[21:]
    for text, kind in ((agent.public, "A"), (damaged, "U"), (agent.public[:-1], "U"), ("", "U"), ("U" * 56, "U")):
        with pytest.raises(BadKey):
            public_bytes(text, kind)
    for seed in ("", "SA", agent.seed, account.public, "SA" + "A" * 56, "ä"):
        with pytest.raises(BadKey):
            Issuer(seed)
    assert is_signed(agent.public, "U", b"m", agent.sign(b"m"))
    assert not is_signed(agent.public, "U", b"n", agent.sign(b"m"))
