"""Masks secrets in everything an attempt sends: log bytes, however they are cut, and documents. Pure.

Every byte of every occurrence of a secret is masked, overlapping ones too; consecutive masked bytes become one ``***``.
Linear in the length of the text for each secret; no work without secrets.
"""

import json
from collections.abc import Iterable
from typing import Any

MASK = "***"
_MASK = MASK.encode()
LIKELY_CUT = 256
LEAST_EDGE = 4
LEAST_LINE = 8
"""Each line of a secret of several lines is a secret itself from this length on."""


def needles(secrets: Iterable[str]) -> tuple[bytes, ...]:
    """The byte strings to look for: each secret as it is, as JSON shows it, and its longer lines. Longest first."""
    found: set[bytes] = set()
    for secret in secrets:
        forms = {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
        if "\n" in secret:
            forms.update(line.strip() for line in secret.splitlines() if len(line.strip()) >= LEAST_LINE)
        found.update(form.encode("utf-8", "surrogatepass") for form in forms if form)
    return tuple(sorted(found, key=lambda needle: (-len(needle), needle)))


class Redactor:
    """The secrets of one attempt."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self.needles = needles(secrets)

    def stream(self) -> "RedactedStream":
        """A new stream of bytes; one for each log source."""
        return RedactedStream(self.needles)

    def text(self, value: str) -> str:
        """The text with its secrets masked."""
        if not self.needles:
            return value
        return self.data(value.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")

    def extract(self, value: str) -> str:
        """The same for a text that may be cut out of a longer one: what is left of a secret at its edges is masked too
        (from LEAST_EDGE bytes on, in texts so long that they are likely to have been cut).
        """
        if not self.needles:
            return value
        data = value.encode("utf-8", "surrogatepass")
        if len(data) < LIKELY_CUT:
            return self.text(value)
        head = max(_reaches(data, needle) for needle in self.needles)
        tail = max(len(data) - _begun(data, needle) for needle in self.needles)
        tail = tail if tail >= LEAST_EDGE else 0
        inner = self.data(data[head : len(data) - tail])
        return ((_MASK if head else b"") + inner + (_MASK if tail else b"")).decode("utf-8", "replace")

    def data(self, value: bytes) -> bytes:
        """The bytes with their secrets masked."""
        stream = self.stream()
        return stream.feed(value) + stream.flush()

    def document(self, value: Any) -> Any:
        """A copy of a JSON value with the secrets masked in every text, keys included. A number or word that is a
        secret as a whole is masked too.
        """
        if not self.needles:
            return value
        match value:
            case str():
                return self.extract(value)
            case dict():
                return {self.extract(str(key)): self.document(member) for key, member in value.items()}
            case list() | tuple():
                return [self.document(member) for member in value]
            case bool() | None:
                return value
            case _:
                return MASK if str(value).encode() in self.needles else value


class RedactedStream:
    """One stream of bytes. What may be the beginning of a secret is held until the next bytes come."""

    def __init__(self, needles: tuple[bytes, ...]) -> None:
        self._needles = needles
        self._held = b""
        self._masked = 0
        """How many of the held bytes belong to a run whose mask has been written already."""

    def feed(self, data: bytes) -> bytes:
        """Take bytes and return those that are decided, masked."""
        if not self._needles:
            return data
        data = self._held + data
        runs = self._runs(data)
        keep = min(_begun(data, needle) for needle in self._needles)
        out = self._mask(data, keep, runs)
        self._held = data[keep:]
        shown = [end for start, end in runs if start < keep or (start == 0 and self._masked)]
        self._masked = max(0, shown[-1] - keep) if shown else 0
        return out

    def flush(self) -> bytes:
        """The stream has ended: what was held, masked."""
        data = self._held
        out = self._mask(data, len(data), self._runs(data))
        self._held, self._masked = b"", 0
        return out

    def _runs(self, data: bytes) -> list[tuple[int, int]]:
        """The runs of secret bytes, in order, without overlap."""
        hits = [(0, self._masked)] if self._masked else []
        for needle in self._needles:
            at = data.find(needle)
            while at >= 0:
                hits.append((at, at + len(needle)))
                at = data.find(needle, at + 1)
        hits.sort()
        runs: list[tuple[int, int]] = []
        for start, end in hits:
            if runs and start < runs[-1][1]:
                runs[-1] = (runs[-1][0], max(runs[-1][1], end))
            else:
                runs.append((start, end))
        return runs

    def _mask(self, data: bytes, keep: int, runs: list[tuple[int, int]]) -> bytes:
        """``data[:keep]`` with the runs masked; a run that began earlier has its mask already."""
        out = []
        done = 0
        for start, end in runs:
            if start >= keep:
                break
            out.append(data[done:start])
            if start > 0 or not self._masked:
                out.append(_MASK)
            done = end
        out.append(data[done:keep])
        return b"".join(out)


def _reaches(data: bytes, needle: bytes) -> int:
    """How many bytes at the start of ``data`` are the end of ``needle`` (not all of it); 0 if fewer than LEAST_EDGE."""
    for length in range(min(len(needle) - 1, len(data)), LEAST_EDGE - 1, -1):
        if data.startswith(needle[-length:]):
            return length
    return 0


def _begun(data: bytes, needle: bytes) -> int:
    """Where in ``data`` the longest proper prefix of ``needle`` begins that reaches the end."""
    at = data.find(needle[:1], max(0, len(data) - len(needle) + 1))
    while at >= 0:
        if needle.startswith(data[at:]):
            return at
        at = data.find(needle[:1], at + 1)
    return len(data)
