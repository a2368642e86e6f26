"""Secrets as they are stored: sealed with AES-GCM, the key's id beside the value so that keys can be rotated."""

import base64
import binascii
import json
import os
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from proctor_common.errors import Code, ProctorError
from proctor_controller.domain.documents.spelled import pack, unpack

NONCE = 12
VERSION = "v1"


class BadSealKey(ValueError):
    """The key file does not hold lines ``<key id>:<base64 of 32 bytes>``."""


class Seal:
    """Encrypts and decrypts values. Without a key it refuses both, and says what to set."""

    def __init__(self, keys: str | None) -> None:
        """``keys``: text of the key file, one key a line; the first seals, the others only open. Raises BadSealKey."""
        self._keys: dict[str, AESGCM] = {}
        self._newest: str | None = None
        for line in (keys or "").split():
            name, found, text = line.partition(":")
            try:
                key = base64.b64decode(text, validate=True)
            except (binascii.Error, ValueError) as fault:
                raise BadSealKey("seal_key: not base64") from fault
            if not found or not name or len(key) != 32:
                raise BadSealKey("seal_key: a line is not <key id>:<base64 of 32 bytes>")
            self._keys[name] = AESGCM(key)
            self._newest = self._newest or name

    def seal(self, value: Any, purpose: str) -> str:
        """The value as sealed text; only the same ``purpose`` (such as a step's id) opens it."""
        if self._newest is None:
            raise ProctorError(
                Code.INTERNAL, "hidden parameters cannot be stored: the controller has no seal_key (seal_key_file)"
            )
        nonce = os.urandom(NONCE)
        data = self._keys[self._newest].encrypt(nonce, json.dumps(pack(value)).encode(), purpose.encode())
        return f"{VERSION}.{self._newest}.{base64.b64encode(nonce + data).decode()}"

    def open(self, sealed: str, purpose: str) -> Any:
        """The value in sealed text. Raises ProctorError if the key is gone or the text was changed."""
        version, name, text = (*sealed.split(".", 2), "", "")[:3]
        key = self._keys.get(name)
        if version != VERSION or key is None:
            raise ProctorError(Code.INTERNAL, f"a stored secret needs key {name or '?'}, which seal_key does not hold")
        data = base64.b64decode(text)
        try:
            return unpack(json.loads(key.decrypt(data[:NONCE], data[NONCE:], purpose.encode())))
        except InvalidTag as fault:
            raise ProctorError(Code.INTERNAL, "a stored secret was changed and cannot be opened") from fault
