"""Random keys as text: NATS keys, passwords, tokens, the sealing key. No I/O but the system's randomness."""

import base64
import os
import secrets

import nkeys

TOKEN_PREFIX = "proctor_"  # noqa: S105 - a prefix, so that leaked tokens can be found


def new_account_seed() -> str:
    """The seed (``SA…``) of a NATS account's key."""
    return _seed(nkeys.PREFIX_BYTE_ACCOUNT)


def new_user_seed() -> str:
    """The seed (``SU…``) of a NATS user's key."""
    return _seed(nkeys.PREFIX_BYTE_USER)


def public_key(seed: str | bytes) -> str:
    """The public key (``A…`` or ``U…``) of a seed."""
    text = seed.encode() if isinstance(seed, str) else seed
    found: bytes = nkeys.from_seed(bytearray(text.strip())).public_key
    return found.decode()


def new_password() -> str:
    """A password of 256 bits that needs no quoting anywhere."""
    return secrets.token_hex(32)


def new_token() -> str:
    """An api token of 256 bits."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def new_sealing_key() -> str:
    """``<key id>:<base64 of 32 bytes>``, one line; a rotated file has the newest key first."""
    return f"{secrets.token_hex(4)}:{base64.b64encode(secrets.token_bytes(32)).decode()}"


def _seed(kind: int) -> str:
    made: bytes = nkeys.encode_seed(os.urandom(32), kind)
    return made.decode()
