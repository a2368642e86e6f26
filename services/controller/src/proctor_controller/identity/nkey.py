"""NATS keys: their text form, signatures, and the claims that an account signs. No I/O.

A key as text is base32 of: a byte for its kind (``U`` user, ``A`` account, ``N`` server), 32 bytes, and a CRC-16 of
both. Claims are a JWT whose algorithm is ``ed25519-nkey``.
"""

import base64
import binascii
import json
from typing import Any

import nkeys
from nacl.exceptions import BadSignatureError, CryptoError
from nacl.signing import VerifyKey

KEY_LENGTH = 56
MAX_CLAIMS = 64 * 1024
_HEADER = {"typ": "JWT", "alg": "ed25519-nkey"}


class BadKey(Exception):
    """Not a key of the requested kind."""


class BadClaims(Exception):
    """Not signed claims, or signed with another key."""


def public_bytes(text: str, kind: str) -> bytes:
    """The 32 bytes of a public key whose text starts with ``kind`` (``U``, ``A`` or ``N``). Raises BadKey."""
    if len(text) != KEY_LENGTH or text[:1] != kind or not text.isascii():
        raise BadKey(f"a public key of this kind has {KEY_LENGTH} characters and starts with {kind}")
    try:
        raw = base64.b32decode(text)
    except binascii.Error:
        raise BadKey("a public key is base32") from None
    if not _is_whole(raw):
        raise BadKey("the key's checksum is wrong: a character was lost or changed")
    return raw[1:-2]


def _is_whole(raw: bytes) -> bool:
    return binascii.crc_hqx(raw[:-2], 0).to_bytes(2, "little") == raw[-2:]


def is_signed(public_key: str, kind: str, message: bytes, signature: bytes) -> bool:
    """Whether ``signature`` over ``message`` was made with the key. Raises BadKey for a malformed key."""
    try:
        VerifyKey(public_bytes(public_key, kind)).verify(message, signature)
    except (BadSignatureError, ValueError):
        return False
    return True


class Issuer:
    """The account's key, whose signatures servers trust. Raises BadKey for a seed of another kind."""

    def __init__(self, seed: str) -> None:
        text = seed.strip()
        try:
            raw = base64.b32decode(text + "=" * (-len(text) % 8))
            self._key: Any = nkeys.from_seed(bytearray(text.encode()))
            self.public_key: str = self._key.public_key.decode()
        except (nkeys.NkeysError, CryptoError, ValueError, TypeError, IndexError):
            raise BadKey("not a seed") from None
        if not _is_whole(raw):
            raise BadKey("the seed's checksum is wrong: a character was lost or changed")
        if not self.public_key.startswith("A"):
            raise BadKey("not the seed of an account (it starts with SA)")

    def sign(self, claims: dict[str, Any]) -> str:
        """The claims as a JWT; ``iss`` is added."""
        body = f"{_encode(_HEADER)}.{_encode({**claims, 'iss': self.public_key})}"
        return f"{body}.{_base64(self._key.sign(body.encode()))}"


def read_claims(token: bytes, kind: str) -> dict[str, Any]:
    """The claims in a JWT signed by its own ``iss``, a key of ``kind``. Raises BadClaims.

    The caller must check whether that issuer is trusted.
    """
    if len(token) > MAX_CLAIMS:
        raise BadClaims(f"over {MAX_CLAIMS} bytes")
    try:
        head, body, signature = token.decode("ascii").split(".")
        header, claims = json.loads(_bytes(head)), json.loads(_bytes(body))
        if not isinstance(header, dict) or not isinstance(claims, dict) or header.get("alg") != _HEADER["alg"]:
            raise BadClaims("not claims signed with ed25519-nkey")
        if not is_signed(str(claims.get("iss")), kind, f"{head}.{body}".encode(), _bytes(signature)):
            raise BadClaims("the signature does not fit")
    except (ValueError, RecursionError, BadKey) as fault:
        raise BadClaims(f"not signed claims: {type(fault).__name__}") from None
    return claims


def _encode(part: dict[str, Any]) -> str:
    return _base64(json.dumps(part, separators=(",", ":")).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    """Base64url without padding, as JWTs carry it."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
