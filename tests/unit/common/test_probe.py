"""The probe answers for a service that has no HTTP of its own."""

import urllib.request
from urllib.error import HTTPError

import pytest

from proctor_common.metrics import make_registry
from proctor_common.probe import serve_probe
from proctor_common.service import StartError


def _get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as refused:
        return refused.code, refused.read().decode()


def test_health_follows_the_service() -> None:
    reason = ""
    with serve_probe("127.0.0.1:0", make_registry(), lambda: reason) as port:
        assert _get(port, "/healthz") == (200, "ok\n")
        reason = "no connection to NATS for 31 s"
        assert _get(port, "/healthz") == (503, "no connection to NATS for 31 s\n")


def test_metrics_are_shown_and_nothing_else() -> None:
    with serve_probe("127.0.0.1:0", make_registry(), lambda: "") as port:
        status, text = _get(port, "/metrics")
        assert status == 200
        assert "process_resident_memory_bytes" in text
        assert _get(port, "/")[0] == 404


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "nowhere.invalid:0", "8774x"])
def test_an_address_that_is_none_is_one_clear_line(address: str) -> None:
    with pytest.raises(StartError, match="metrics_http: cannot listen on"), serve_probe(address, make_registry(), str):
        pass
