"""Which proxy of the environment is used for an address."""

import os

import pytest

from proctor_common.proxies import proxy_for

PROXY = "http://proxy.example:3128"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8774",
        "http://127.3.2.1",
        "https://localhost:8774",
        "http://LOCALHOST.",
        "ws://api.localhost/x",
        "http://[::1]:8774",
        "http://[::ffff:127.0.0.1]",
        "http://0.0.0.0:1",
    ],
)
def test_nothing_goes_through_a_proxy_to_this_machine(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, PROXY)
    assert proxy_for(url) is None


def test_a_websocket_goes_the_way_of_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://one.example")
    monkeypatch.setenv("HTTPS_PROXY", "two.example:8080")
    assert proxy_for("http://lab.example") == proxy_for("ws://lab.example") == "http://one.example"
    assert proxy_for("https://lab.example") == proxy_for("wss://lab.example") == "http://two.example:8080"


def test_all_proxy_stands_for_what_has_none_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", PROXY)
    assert proxy_for("https://lab.example") == PROXY
    monkeypatch.setenv("https_proxy", "")
    assert proxy_for("https://lab.example") == PROXY


@pytest.mark.parametrize(
    ("excepted", "url", "is_excepted"),
    [
        ("lab.example", "http://lab.example", True),
        ("lab.example", "http://a.lab.example", True),
        (".lab.example", "http://a.lab.example", True),
        ("*.lab.example", "wss://a.lab.example", True),
        ("lab.example", "http://xlab.example", False),
        ("LAB.example:8774", "http://lab.example:8774", True),
        ("lab.example:8774", "http://lab.example", False),
        ("lab.example:443", "https://lab.example", True),
        ("*", "https://lab.example", True),
        ("other.example, *", "https://lab.example", True),
        ("10.0.0.0/8", "http://10.1.2.3:8774", True),
        ("10.0.0.0/8", "http://11.1.2.3:8774", False),
        ("fd00::/8", "http://[fd00::1]:8774", True),
        ("fd00::1", "http://[fd00:0::1]", True),
        ("10.1.2.3", "http://10.1.2.3:99", True),
        (" , ,", "http://lab.example", False),
    ],
)
def test_no_proxy(excepted: str, url: str, is_excepted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", PROXY)
    monkeypatch.setenv("no_proxy", excepted)
    assert (proxy_for(url) is None) == is_excepted


@pytest.mark.parametrize("proxy", ["socks5://p:1080", "ftp://p", "http://", "http://p:99999", "http://[::1", "://"])
def test_a_proxy_that_cannot_be_used_is_named_by_its_variable(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(ValueError, match=r"^https_proxy names no proxy"):
        proxy_for("https://lab.example")
