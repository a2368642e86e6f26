"""Sealed values: opened by the right key for the right purpose only."""

import base64

import pytest

from proctor_common.errors import ProctorError
from proctor_controller.db.sealing import BadSealKey, Seal

OLD = "old:" + base64.b64encode(bytes(range(32))).decode()
NEW = "new:" + base64.b64encode(bytes(range(32, 64))).decode()


def test_what_is_sealed_is_opened_and_not_seen() -> None:
    sealed = Seal(OLD).seal({"password": "geheim"}, "step-1")
    assert "geheim" not in sealed
    assert sealed.startswith("v1.old.")
    assert Seal(OLD).open(sealed, "step-1") == {"password": "geheim"}
    assert sealed != Seal(OLD).seal({"password": "geheim"}, "step-1")


def test_keys_are_rotated() -> None:
    sealed = Seal(OLD).seal("x", "s")
    both = Seal(f"{NEW}\n{OLD}\n")
    assert both.open(sealed, "s") == "x"
    assert both.seal("x", "s").startswith("v1.new.")
    with pytest.raises(ProctorError, match="needs key old"):
        Seal(NEW).open(sealed, "s")


def test_a_value_moved_elsewhere_or_changed_stays_shut() -> None:
    seal = Seal(OLD)
    sealed = seal.seal("x", "step-1")
    with pytest.raises(ProctorError, match="changed"):
        seal.open(sealed, "step-2")
    with pytest.raises(ProctorError, match="changed"):
        seal.open(sealed[:-4] + ("AAAA" if sealed[-4:] != "AAAA" else "BBBB"), "step-1")


@pytest.mark.parametrize("text", ["nokey", "k:!!!", "k:" + base64.b64encode(b"short").decode(), ":" + OLD[4:]])
def test_a_bad_key_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(BadSealKey) as caught:
        Seal(text)
    assert text.partition(":")[2] not in str(caught.value) or not text.partition(":")[2]


def test_without_a_key_nothing_is_stored_in_clear() -> None:
    with pytest.raises(ProctorError, match="seal_key"):
        Seal(None).seal("x", "s")
