"""The webhook at a run's end: its signature and the times of its tries. Pure.

The signature is that of the Standard Webhooks specification, so that its libraries can check it.
"""

import base64
import binascii
import hashlib
import hmac
from datetime import timedelta

ID_HEADER = "webhook-id"
TIMESTAMP_HEADER = "webhook-timestamp"
SIGNATURE_HEADER = "webhook-signature"
BASE64_SECRET = "whsec_"  # noqa: S105 - what such a secret begins with, none itself

FIRST_PAUSE = 5.0
LONGEST_PAUSE = 600.0


def signature(secret: str, id_: str, timestamp: int, body: bytes) -> str:
    """``v1,`` and the base64 of the HMAC-SHA256 over ``id.timestamp.body``.

    The key is the secret as UTF-8; of a secret that begins with ``whsec_`` it is the rest, decoded from base64.
    """
    signed = f"{id_}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(_key(secret), signed, hashlib.sha256)).decode()


def _key(secret: str) -> bytes:
    if secret.startswith(BASE64_SECRET):
        try:
            return base64.b64decode(secret.removeprefix(BASE64_SECRET), validate=True)
        except (binascii.Error, ValueError):
            pass  # not base64: an ordinary secret with this prefix
    return secret.encode("utf-8", "surrogatepass")


def pause(tries: int) -> timedelta:
    """How long to wait after the try of this number (from 1): 5 s, then twice as long each time, up to 10 minutes."""
    return timedelta(seconds=min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(tries - 1, 20)))
