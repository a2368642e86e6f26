"""The signature of a webhook as docs/operations.md says to check it, the pauses between tries, where it may go."""

import base64
import hashlib
import hmac
import re
import time
from pathlib import Path
from typing import Any

import pytest

from proctor_controller.domain.webhook import pause, signature
from proctor_controller.duties.outbound import Allowed

SECRET = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_the_example_of_the_specification() -> None:
    body = b'{"test": 2432232314}'
    found = signature(f"whsec_{SECRET}", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("secret", ["swordfish", "whsec_no base64!", "ключ"])
def test_any_text_is_a_secret(secret: str) -> None:
    found = signature(secret, "id", 7, b"{}")
    expected = hmac.new(secret.encode(), b"id.7.{}", hashlib.sha256).digest()
    assert found == "v1," + base64.b64encode(expected).decode()
    assert signature(secret, "id", 8, b"{}") != found


def test_pauses_grow_and_have_an_end() -> None:
    assert [pause(tries).total_seconds() for tries in (1, 2, 3, 7, 8, 9, 10_000)] == [5, 10, 20, 320, 600, 600, 600]


@pytest.mark.parametrize(
    ("entries", "public", "host", "address", "allowed"),
    [
        ([], True, "example.org", "93.184.216.34", True),
        ([], False, "example.org", "93.184.216.34", False),
        ([], True, "localhost", "127.0.0.1", False),
        ([], True, "db", "10.1.2.3", False),
        ([], True, "metadata", "169.254.169.254", False),
        ([], True, "mapped", "::ffff:10.0.0.1", False),
        ([], True, "mapped", "::ffff:93.184.216.34", True),
        ([], True, "six", "::1", False),
        ([], True, "translated", "64:ff9b::a9fe:a9fe", False),
        ([], True, "translated", "64:ff9b::5db8:d822", True),
        ([], True, "tunnelled", "2002:a00:1::1", False),
        ([], True, "zone", "fe80::1%eth0", False),
        ([], True, "many", "224.0.0.1", False),
        ([], True, "any", "0.0.0.0", False),
        (["ci.lab"], True, "CI.lab.", "10.1.2.3", True),
        (["*.lab"], True, "ci.lab", "10.1.2.3", True),
        (["*.lab"], True, "lab", "10.1.2.3", False),
        (["*.lab"], True, "ci.lab.evil", "10.1.2.3", False),
        (["10.1.0.0/16"], False, "x", "10.1.2.3", True),
        (["10.1.0.0/16"], False, "x", "10.2.2.3", False),
        (["127.0.0.1", "::1"], True, "x", "::1", True),
    ],
)
def test_where_it_may_go(entries: list[str], public: bool, host: str, address: str, allowed: bool) -> None:
    assert Allowed(entries, public=public).allows(host, address) is allowed


@pytest.mark.parametrize("entry", ["a b", "", "*.", "http://x/", "10.0.0.0/99"])
def test_what_is_neither_name_nor_network(entry: str) -> None:
    with pytest.raises(ValueError, match="neither"):
        Allowed([entry], public=True)


def test_the_page_says_how_to_check_it() -> None:
    page = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    (code,) = re.findall(r"```python\n(.*?def is_ours.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    now = int(time.time())
    for secret in ("swordfish", f"whsec_{SECRET}"):
        headers = {
            "webhook-id": "i",
            "webhook-timestamp": str(now),
            "webhook-signature": signature(secret, "i", now, b"{}"),
        }
        assert names["is_ours"](secret, headers, b"{}")
        assert not names["is_ours"](secret, headers, b"{ }")
        assert not names["is_ours"]("other", headers, b"{}")
