"""Stored secrets: what opens them, and how a key is changed while controllers run."""

import base64

import pytest

from proctor_cli.init.keys import new_sealing_key
from proctor_common.errors import ProctorError
from proctor_controller.db.sealing import BadSealKey, Seal

VALUE = {"token": "schloß 7", "more": [1, None]}


def test_a_sealed_value_shows_its_key_and_nothing_else() -> None:
    key = new_sealing_key()
    seal = Seal(key)
    sealed = seal.seal(VALUE, "step-1")
    assert sealed.startswith(f"v1.{key.partition(':')[0]}.")
    assert b"schlo" not in base64.b64decode(sealed.rsplit(".", 1)[1])
    assert seal.seal(VALUE, "step-1") != sealed
    assert seal.open(sealed, "step-1") == VALUE


def test_a_value_moved_to_another_step_or_changed_is_not_opened() -> None:
    seal = Seal(new_sealing_key())
    sealed = seal.seal(VALUE, "step-1")
    head, _, data = sealed.rpartition(".")
    raw = bytearray(base64.b64decode(data))
    raw[-1] ^= 1
    for text, purpose in ((sealed, "step-2"), (f"{head}.{base64.b64encode(raw).decode()}", "step-1")):
        with pytest.raises(ProctorError, match="was changed"):
            seal.open(text, purpose)


def test_a_key_is_changed_in_two_steps_with_controllers_of_both_kinds_at_work() -> None:
    """docs/security.md: first the new key below the old one everywhere, then the new one on top."""
    old, new = new_sealing_key(), new_sealing_key()
    before, between, after = Seal(old), Seal(f"{old}\n{new}\n"), Seal(f"{new}\n{old}\n")
    for one, another in ((before, between), (between, before), (between, after), (after, between)):
        assert another.open(one.seal(VALUE, "s"), "s") == VALUE
    assert after.seal(VALUE, "s").split(".")[1] == new.partition(":")[0]


def test_a_key_that_is_gone_is_named() -> None:
    old = new_sealing_key()
    sealed = Seal(old).seal(VALUE, "s")
    with pytest.raises(ProctorError, match=f"needs key {old.partition(':')[0]}"):
        Seal(new_sealing_key()).open(sealed, "s")
    with pytest.raises(ProctorError, match="seal_key"):
        Seal(None).seal(VALUE, "s")


@pytest.mark.parametrize("text", ["k1", "k1:", ":" + "A" * 43 + "=", "k1:AAAA", "k1:not base64!"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(BadSealKey, match="seal_key"):
        Seal(text)
